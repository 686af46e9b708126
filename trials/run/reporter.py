"""Reporter: publishes what a trial does while it runs, as progress.json, as log.txt, and to an observer in this process.

The trial's own thread notes numbers and appends its lines to the log, which is a local file also where the ledger is an object
store. A second thread writes the progress, takes over standard error and uploads the log. The trial waits for a store when it
begins (the first progress, the log of an earlier attempt) and when it ends (the last upload).
"""

import platform
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from trials.ledger import storage, trial_progress
from trials.ledger.trial_progress import LOSSES, TrialProgress
from trials.printable import one_line
from trials.run.trial_log import END, TrialLog

LOCAL_SECONDS, STORE_SECONDS = 3.0, 30.0
"""Between two writes of the progress: to a folder, and to an object store, which charges for every write."""
_TICK = 1.0  # seconds between two looks at standard error
_FEW = 4  # the first documents give a rate where they are this part of all
_WINDOW = 30  # marks over which a rate is measured; one is at least a tick after the one before

Observe = Callable[[TrialProgress], None]
"""Called with the progress of a running trial at each phase and about once a second, by two threads."""


def ignore(progress: TrialProgress) -> None:
    """An observer that does nothing."""


class Reporter:
    """Publishes the progress of one attempt at a trial. An error in doing so is reported once and never ends the trial."""

    def __init__(
        self,
        key: str,
        folder: Path,
        mine: Callable[[], bool] = lambda: True,
        observe: Observe = ignore,
        clock: Callable[[], float] = time.monotonic,
    ):
        """`folder` is the trial's in the ledger. Nothing is written once `mine` is false: another process runs the trial."""
        self.log = TrialLog(folder, self._guard, mine=mine)
        self.lost_writes = 0
        """How often the progress or the log could not be written."""
        self._folder, self._mine, self._observe, self._clock = folder, mine, observe, clock
        self._interval = LOCAL_SECONDS if storage.is_local(folder) else STORE_SECONDS
        self._progress = TrialProgress(key=key, phase="start", host=platform.node())
        self._losses: deque[tuple[int, float]] = deque(maxlen=LOSSES)
        self._tokens: Sequence[int] = ()
        self._evaluated: float | None = None
        self._began = clock()
        self._marks: deque[tuple[float, int, int]] = deque(maxlen=_WINDOW)  # (time, steps or documents, tokens)
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._thread: threading.Thread | None = None
        self._on_disk = self._phase_has_ended = False

    @contextmanager
    def running(self) -> Iterator[None]:
        """Publishes within the context."""
        if self._mine():  # an earlier attempt that was killed has left its own progress
            self._guard(lambda: self._write(self.progress()))
        self.log.open()
        self._thread = threading.Thread(target=self._work, name=f"reporter of {self._progress.key}", daemon=True)
        self._thread.start()
        try:
            yield
        finally:
            self.close()

    def close(self) -> None:
        """Removes the progress and completes the log. A second call does nothing."""
        if self._thread is None:
            return
        self._over.set()
        self._thread.join()
        self._thread = None
        if self._on_disk and self._mine():
            self._guard(lambda: trial_progress.remove(self._folder))
        self.log.write(END)
        self.log.publish()
        self.log.close()

    # ---------------------------------------------------------------------- what the trial notes

    def phase(self, name: str, parent: str | None = None) -> None:
        """The trial begins a phase. `parent`: the trial that runs in the place of this one meanwhile."""
        with self._lock:
            self._progress = TrialProgress(
                key=self._progress.key, phase=name, host=self._progress.host, parent=parent, evaluated=self._evaluated
            )
            self._began = self._clock()
            self._marks.clear()
            self._losses.clear()
        self.log.write(f"{name} begins")
        self._guard(lambda: self._observe(self.progress()))

    def phase_ended(self, name: str, seconds: float) -> None:
        self.log.write(f"{name} took {seconds:.1f} s")
        self._phase_has_ended = True

    def training(self, tokens: Sequence[int], start: int, together: int = 1) -> None:
        """A training begins after step `start`. `tokens[i]` is the number of tokens in the first i + 1 steps.

        `together` is the number of trials in its pass.
        """
        with self._lock:
            self._tokens = tokens
            self._progress.together = together if together > 1 else None
            self._progress.step, self._progress.steps = start, len(tokens)
            self._marks.clear()
            self._mark(start)

    def step(self, step: int, loss: float) -> None:
        """The training has done `step` steps."""
        with self._lock:
            self._losses.append((step, loss))
            self._progress.step, self._progress.loss = step, loss
            self._mark(step)

    def documents(self, answered: int, of: int) -> None:
        """So many of the role's documents are answered."""
        with self._lock:
            if answered < (self._progress.documents or 0):  # out of memory: they are answered again
                self._marks.clear()
            self._progress.documents, self._progress.of_documents = answered, of
            self._mark(answered)

    def rows(self, measured: int, of: int) -> None:
        """So many of the held-out rows are measured, in phase drift."""
        self.documents(measured, of)

    def takes_turns(self) -> None:
        """From now on the roles take turns: several phases evaluate one role."""
        self._evaluated = 0.0

    def evaluated(self, seconds: float) -> None:
        """Documents have been evaluated, in so many seconds of this attempt or of an earlier one."""
        if self._evaluated is not None:
            self._evaluated += seconds

    def note(self, text: str) -> None:
        """Writes a line or several into the log."""
        self.log.write(text)

    # ---------------------------------------------------------------------- what is published

    def progress(self) -> TrialProgress:
        """The current progress."""
        with self._lock:
            found = self._progress.model_copy(update={"losses": list(self._losses)}).stamped()
            found.seconds = round(self._clock() - self._began, 1)
            done, of = (found.step, found.steps) if found.steps is not None else (found.documents, found.of_documents)
            if done is None or of is None or len(self._marks) < 2:
                return found
            (begun, _, before), (newest, _, tokens) = self._marks[0], self._marks[-1]
            found.left = self._left(of)
            if found.steps is not None:
                found.tokens_per_second = round((tokens - before) / (newest - begun), 1)
            return found

    def _left(self, of: int) -> float | None:
        """Seconds to the end of the phase; None where all is answered or the last ones are overdue."""
        marks = list(self._marks)
        if self._progress.steps is None and marks[0][1] == 0:
            # responses are generated many at a time: the first one says how long one takes, and not how many end
            if len(marks) > 2:
                del marks[0]
            elif marks[-1][1] < of / _FEW:
                return None
        (begun, first, _), (newest, last, _) = marks[0], marks[-1]
        each, now, together = (newest - begun) / (last - first), self._clock(), last - marks[-2][1]
        rest, waited = of - last, now - newest
        if waited > each * together:  # overdue: at the best, as many as last time are done now
            each, rest, waited = (now - begun) / (last - first + together), rest - together, 0.0
        left = round(each * rest - waited, 1)
        return left if left > 0.0 else None

    def _mark(self, done: int) -> None:
        """Notes when so many steps or documents were done, at most once a tick."""
        now = self._clock()
        if not self._marks or (now - self._marks[-1][0] >= _TICK and done > self._marks[-1][1]):
            tokens = self._tokens[min(done, len(self._tokens)) - 1] if done and self._tokens else 0
            self._marks.append((now, done, tokens))

    def _work(self) -> None:
        written = time.monotonic()
        while not self._over.wait(_TICK):
            ended, self._phase_has_ended = self._phase_has_ended, False
            self.log.pump(publish=ended)
            now = self.progress()
            self._guard(lambda now=now: self._observe(now))  # type: ignore[misc]
            if time.monotonic() - written >= self._interval and self._mine():
                self._guard(lambda now=now: self._write(now))  # type: ignore[misc]
                written = time.monotonic()

    def _write(self, progress: TrialProgress) -> None:
        self._on_disk = True  # also by a failed write
        trial_progress.write(self._folder, progress)

    def _guard(self, call: Callable[[], None]) -> None:
        """Runs the call; reports its first error on standard error."""
        try:
            call()
        except Exception as error:  # noqa: BLE001  # whatever a store's library raises, the trial goes on
            self.lost_writes += 1
            if self.lost_writes == 1:
                why = one_line(f"{type(error).__name__}: {error}")[:300]
                print(f"warning: {self._folder}: progress or log cannot be written ({why}); the trial goes on", file=sys.stderr)
