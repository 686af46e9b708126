"""How long running and waiting trials still take, from the seconds of finished ones; before them, from the plan's."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from analysis.formatting.numbers import duration
from trials.ledger.trial_progress import TrialProgress

UNKNOWN = "time left not known yet"
_DOUBTFUL = 3.0
"""What takes so many times its count says that the count is wrong. It does not say by how much for other phases."""
_SHORT = 30.0  # seconds by which any phase may be off
_ORDER = ("load", "mix", "train", "drift")  # then the roles; the first records may lack a phase


class Running(NamedTuple):
    """A running trial."""

    baseline: bool
    age: float
    """Seconds since it started."""
    progress: TrialProgress | None = None


class Timings:
    """Seconds by phase of the finished trials. Baselines are apart: they train nothing."""

    def __init__(self) -> None:
        self.counted: Mapping[bool, Mapping[str, float]] = {}
        """Seconds by phase that the plan counts, by whether of a baseline, for phases that nothing has measured yet."""
        self._count = {True: 0, False: 0}
        self._sums: dict[bool, dict[str, float]] = {True: {}, False: {}}  # by phase
        self._training: float | None = None
        self._slower = 1.0  # measured seconds of the last trial, for a second that the plan counts
        self._doubtful = False  # a running phase takes much longer than it is counted

    def add(self, seconds: Mapping[str, float], baseline: bool) -> None:
        both = seconds.keys() & self.counted.get(baseline, {}).keys()
        if counted := sum(self.counted[baseline][phase] for phase in both):
            self._slower = sum(seconds[phase] for phase in both) / counted
            self._doubtful = self._slower > _DOUBTFUL
        self._count[baseline] += 1
        sums = self._sums[baseline]
        for phase, spent in seconds.items():
            sums[phase] = sums.get(phase, 0.0) + spent

    def watch(self, progress: TrialProgress) -> None:
        """A running phase shows how long a training takes, and whether the count is wrong, before any trial has ended."""
        seconds = (progress.seconds + (progress.left or 0.0)) / (progress.together or 1)
        if progress.phase == "train" and progress.left is not None:
            self._training = seconds
        counted = next((phases[progress.phase] for phases in self.counted.values() if progress.phase in phases), 0.0)
        if counted and not any(self._count.values()):
            self._doubtful |= seconds > _DOUBTFUL * counted + _SHORT

    def mean(self, baseline: bool) -> float | None:
        """Mean seconds of a finished trial; None while there is none."""
        return sum(self._means(baseline).values()) if self._count[baseline] else None

    def _means(self, baseline: bool) -> dict[str, float]:
        """Seconds by phase: of finished trials, else of the baselines and a running training, else counted.

        Empty while a phase that counts is unknown.
        """
        if count := self._count[baseline]:
            return {phase: spent / count for phase, spent in self._sums[baseline].items()}
        counted = {} if self._doubtful else self.counted.get(baseline, {})
        found = {phase: spent * self._slower for phase, spent in counted.items()}
        if baseline:
            return found
        if self._count[True]:  # they answered the same documents
            found |= {phase: spent for phase, spent in self._means(True).items() if _rank(phase) == len(_ORDER)}
        if self._training is not None:
            found["train"] = self._training
        return found if "train" in found and any(_rank(phase) == len(_ORDER) for phase in found) else {}

    def _measured(self, baseline: bool) -> bool:
        """Whether nothing that counts is the plan's."""
        return self._count[baseline] > 0 or (not baseline and self._count[True] > 0 and self._training is not None)

    def left(self, one: Running) -> float | None:
        """Seconds until a running trial ends, 0 for an overdue one; None while that is unknown."""
        parts = self._parts(one)
        return None if parts is None else sum(parts)

    def _work(self, one: Running) -> float | None:
        """Seconds of its worker that a running trial still takes. Trials that are trained in one pass share the pass."""
        parts = self._parts(one)
        if parts is None:
            return None
        together = one.progress.together if one.progress is not None else None
        return parts[0] / (together or 1) + parts[1]

    def _parts(self, one: Running) -> tuple[float, float] | None:
        """Seconds of the current phase and of the later ones."""
        now, means = one.progress, self._means(one.baseline)
        if not means:
            return None
        if now is None or now.phase not in means:
            return max(sum(means.values()) - one.age, 0.0), 0.0
        if now.evaluated is not None:  # the roles take turns, so what is left is not that of the later ones
            roles = sum(spent for phase, spent in means.items() if _rank(phase) == len(_ORDER))
            return max(roles - now.evaluated - now.seconds, now.left or 0.0, 0.0), 0.0
        phases = sorted(means, key=_rank)  # stable: the roles stay in the config's order
        later = sum(means[phase] for phase in phases[phases.index(now.phase) + 1 :])
        here = now.left if now.left is not None else max(means[now.phase] * (now.together or 1) - now.seconds, 0.0)
        return here, later

    def of_sweep(self, running: Sequence[Running], waiting: Mapping[bool, int], slots: int) -> str:
        """'about 2 min 10 s left' for the running trials and so many `waiting` ones, by whether they are baselines."""
        lefts = [self.left(one) for one in running]
        means = {baseline: sum(self._means(baseline).values()) for baseline, count in waiting.items() if count}
        if None in lefts or 0 in means.values() or not (lefts or means):
            return UNKNOWN
        measured = all(map(self._measured, {one.baseline for one in running} | means.keys()))
        known = [one for one in lefts if one is not None]
        if not means and 0.0 in known:
            return "the last trials take longer than those before" if measured else UNKNOWN
        # an overdue trial shortens no other one's time
        work = [spent for one in running if (spent := self._work(one)) is not None]
        rest = sum(work) + sum(waiting[baseline] * mean for baseline, mean in means.items())
        about = f"about {duration(round(max([rest / max(slots, 1), *known, 1.0])))} left"
        return about if measured else f"{about} (counted, not measured)"


def _rank(phase: str) -> int:
    return _ORDER.index(phase) if phase in _ORDER else len(_ORDER)
