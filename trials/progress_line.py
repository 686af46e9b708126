"""The progress of a running trial as one line of text, and that line on standard error."""

import sys
import time
from collections.abc import Callable
from datetime import timedelta
from typing import TextIO

from trials.ledger.trial_progress import TrialProgress
from trials.printable import one_line

_SECONDS = 30.0  # between two lines where nothing can be redrawn


def _clock_time(seconds: float) -> str:
    return str(timedelta(seconds=max(1, round(seconds))))


def describe(progress: TrialProgress, duration: Callable[[float], str] = _clock_time) -> str:
    """'train 120/600, loss 1.234, 5,400 tokens/s, 0:04:10 left': the phase and what is known of it."""
    head = progress.phase.replace("evaluate.", "evaluate ", 1)
    if progress.parent is not None:
        head = f"{head} (its training, {progress.parent})"
    if progress.steps is not None:
        head += f" {progress.step or 0}/{progress.steps}"
    elif progress.of_documents is not None:
        of = "rows" if progress.phase == "drift" else "documents"
        head += f" {progress.documents or 0}/{progress.of_documents} {of}"
    parts = [head]
    if progress.loss is not None:
        parts.append(f"loss {progress.loss:.3f}")
    if progress.tokens_per_second is not None:
        parts.append(f"{progress.tokens_per_second:,.0f} tokens/s")
    if progress.left is not None:
        parts.append(f"{duration(progress.left)} left")
    return one_line(", ".join(parts))


class ProgressLine:
    """Shows the progress on standard error: redrawn in place on a terminal, else a line a phase and every half minute."""

    def __init__(self, stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic):
        self._stream, self._clock = stream or sys.stderr, clock
        self._redraws = self._stream.isatty()
        self._shown: tuple[str, str] | None = None  # key and phase
        self._at = 0.0

    def __call__(self, progress: TrialProgress) -> None:
        of, now = (progress.key, progress.phase), self._clock()
        line = f"{progress.key[:8]}  {describe(progress)}"
        if self._redraws:
            print(f"\r{line}\x1b[K", end="", file=self._stream, flush=True)
        elif of != self._shown or now - self._at >= _SECONDS:
            print(line, file=self._stream, flush=True)
            self._shown, self._at = of, now

    def clear(self) -> None:
        """Removes the redrawn line."""
        if self._redraws:
            print("\r\x1b[K", end="", file=self._stream, flush=True)
