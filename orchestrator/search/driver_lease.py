"""Drivers that share one study: one with sqlite, several with a journal or PostgreSQL.

A driver holds a lease in the sweep's folder while it lives and signs every trial that it starts. A driver that acquires the
expired lease of another takes over the running trials that the other signed.
"""

import math
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import optuna
from optuna.trial import FrozenTrial, Trial, TrialState

from trials.ledger.lease import Lease, acquire, held
from trials.ledger.storage import refuse_link

_UNSIGNED = 60.0  # seconds; a driver that died between asking for a trial and signing it left one that stays unsigned
_POLL = 2.0  # seconds between two reads of the other drivers' running trials


class Drivers:
    def __init__(self, study: optuna.Study, folder: Path, shared: bool, clock: Callable[[], float] = time.monotonic):
        self.study, self.shared = study, shared
        self.id = uuid.uuid4().hex[:12]
        self._folder, self._clock = folder, clock
        self._unsigned: dict[int, float] = {}
        self._last: tuple[float, bool] = (-math.inf, False)  # when the study was read, and what `last` returned
        self._lease: Lease | None = acquire(self._place(self.id)) if shared else None

    def _place(self, driver: str) -> Path:
        return refuse_link(self._folder / "drivers") / driver

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Excludes the other drivers from asking the study: two at once could exceed the budget or propose a point twice."""
        if not self.shared:
            yield
            return
        while (mine := acquire(self._place("asking"))) is None:
            time.sleep(0.05)
        with mine:
            yield

    @property
    def lost(self) -> bool:
        """Whether this driver's lease expired (it was suspended, for example): another driver has its trials then."""
        return self._lease is not None and self._lease.lost

    def claim(self, trial: Trial) -> None:
        if self.shared:
            trial.set_user_attr("driver", self.id)

    def trial(self, frozen: FrozenTrial) -> Trial:
        """Signs the running trial and returns it as one that can be reported."""
        trial = Trial(self.study, frozen._trial_id)
        self.claim(trial)
        return trial

    def adopt(self, trials: list[FrozenTrial]) -> list[FrozenTrial]:
        """The running trials that no living driver runs. With sqlite these are all: call it once, at the start."""
        running = [trial for trial in trials if trial.state == TrialState.RUNNING]
        if not self.shared:
            return running
        found = []
        for driver in {str(trial.user_attrs["driver"]) for trial in running if "driver" in trial.user_attrs} - {self.id}:
            if held(place := self._place(driver)) or (expired := acquire(place)) is None:
                continue
            # another driver may have taken the same trials before this one had the lease: read them again
            with expired:
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
        """Whether no other driver runs a trial of this study."""
        if not self.shared:
            return True
        if self._clock() - self._last[0] > _POLL:
            running = self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
            self._last = (self._clock(), all(trial.user_attrs.get("driver") == self.id for trial in running))
        return self._last[1]

    def spent(self) -> tuple[float, float]:
        """GPU-seconds of all other drivers, past and present, and the longest time that any of them counted."""
        others = [
            value for name, value in self.study.user_attrs.items() if name.startswith("spent.") and name != f"spent.{self.id}"
        ]
        return sum(gpu for gpu, _ in others), max((seconds for _, seconds in others), default=0.0)

    def restore_spent(self, spent: Sequence[float]) -> None:
        """Stores what a lost study had counted, as the manifest has it."""
        self.study.set_user_attr("spent.before", spent)

    def spend(self, gpu_seconds: float, seconds: float) -> None:
        """Stores what this driver spent by itself, and for how long the sweep has run, earlier commands included."""
        self.study.set_user_attr(f"spent.{self.id}", [round(gpu_seconds, 1), round(seconds, 1)])

    def leave(self) -> None:
        if self._lease is not None:
            self._lease.release()
