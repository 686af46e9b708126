"""The commands that drive one study: alone with sqlite, several with a journal or PostgreSQL.

A driver holds a lease in the sweep's folder for as long as it lives, and signs every trial that it takes. A driver that finds
another's lease dead takes over that lease, of which there is one, and with it the other's running trials.
"""

import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import optuna
from optuna.trial import FrozenTrial, Trial, TrialState

from trials.ledger.lease import Lease, acquire, held
from trials.ledger.storage import refuse_link

_UNSIGNED = 60.0  # seconds after which a running trial that nobody signed was left by a driver that died asking for it
_LOOK_AGAIN = 2.0  # seconds between two looks for the others' running trials


class Drivers:
    def __init__(self, study: optuna.Study, folder: Path, shared: bool, clock: Callable[[], float] = time.monotonic):
        self.study, self.shared = study, shared
        self.id = uuid.uuid4().hex[:12]
        self._folder, self._clock = folder, clock
        self._unsigned: dict[int, float] = {}
        self._last: tuple[float, bool] = (-1e9, False)
        self._lease: Lease | None = acquire(self._place(self.id)) if shared else None

    def _place(self, driver: str) -> Path:
        return refuse_link(self._folder / "drivers") / driver

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Nobody else asks the study meanwhile: two that do at once would exceed the budget or propose one point twice."""
        if not self.shared:
            yield
            return
        while (mine := acquire(self._place("asking"))) is None:
            time.sleep(0.05)
        with mine:
            yield

    @property
    def lost(self) -> bool:
        """This driver was taken for dead (it was suspended, say), and another has its trials now."""
        return self._lease is not None and self._lease.lost

    def claim(self, trial: Trial) -> None:
        if self.shared:
            trial.set_user_attr("driver", self.id)

    def trial(self, frozen: FrozenTrial) -> Trial:
        """The running trial as this driver's own."""
        trial = Trial(self.study, frozen._trial_id)
        self.claim(trial)
        return trial

    def adopt(self, trials: list[FrozenTrial]) -> list[FrozenTrial]:
        """The running trials that nobody runs any more. With sqlite nobody else can; call it once, at the start."""
        running = [trial for trial in trials if trial.state == TrialState.RUNNING]
        if not self.shared:
            return running
        found = []
        for driver in {str(trial.user_attrs["driver"]) for trial in running if "driver" in trial.user_attrs} - {self.id}:
            if held(place := self._place(driver)) or (estate := acquire(place)) is None:
                continue
            with estate:  # another may have taken the same trials between the look and the lease
                now = self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
                mine = [trial for trial in now if trial.user_attrs.get("driver") == driver]
                for trial in mine:
                    self.study._storage.set_trial_user_attr(trial._trial_id, "driver", self.id)
                found += mine
        return found + self._abandoned(running)

    def _abandoned(self, running: list[FrozenTrial]) -> list[FrozenTrial]:
        unsigned = {trial.number: trial for trial in running if "driver" not in trial.user_attrs}
        self._unsigned = {number: self._unsigned.get(number, self._clock()) for number in unsigned}
        return [unsigned[number] for number, since in self._unsigned.items() if self._clock() - since > _UNSIGNED]

    def last(self) -> bool:
        """No other driver runs a trial of this study."""
        if not self.shared:
            return True
        if self._clock() - self._last[0] > _LOOK_AGAIN:
            running = self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
            self._last = (self._clock(), all(trial.user_attrs.get("driver") == self.id for trial in running))
        return self._last[1]

    def spent(self) -> tuple[float, float]:
        """GPU-seconds of all other drivers, those that have ended included, and the longest time that any of them counted."""
        others = [
            value for name, value in self.study.user_attrs.items() if name.startswith("spent.") and name != f"spent.{self.id}"
        ]
        return sum(gpu for gpu, _ in others), max((seconds for _, seconds in others), default=0.0)

    def restore_spent(self, spent: Sequence[float]) -> None:
        """What a lost study had counted, from the manifest."""
        self.study.set_user_attr("spent.before", spent)

    def spend(self, gpu_seconds: float, seconds: float) -> None:
        """What this driver has spent by itself, and how long the sweep has run, earlier commands included."""
        self.study.set_user_attr(f"spent.{self.id}", [round(gpu_seconds, 1), round(seconds, 1)])

    def leave(self) -> None:
        if self._lease is not None:
            self._lease.release()
