"""How long running and waiting trials still take, from the seconds of finished ones. Without any, nothing is guessed."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from analysis.formatting.numbers import duration
from trials.ledger.trial_progress import TrialProgress

UNKNOWN = "time left not known yet"


class Running(NamedTuple):
    """A running trial."""

    baseline: bool
    age: float
    """Seconds since it started."""
    progress: TrialProgress | None = None


class Timings:
    """Seconds by phase of the finished trials. Baselines are apart: they train nothing."""

    def __init__(self) -> None:
        self._count = {True: 0, False: 0}
        self._sums: dict[bool, dict[str, float]] = {True: {}, False: {}}  # by phase, in the trials' order

    def add(self, seconds: Mapping[str, float], baseline: bool) -> None:
        self._count[baseline] += 1
        sums = self._sums[baseline]
        for phase, spent in seconds.items():
            sums[phase] = sums.get(phase, 0.0) + spent

    def mean(self, baseline: bool) -> float | None:
        """Mean seconds of a finished trial; None while there is none."""
        count = self._count[baseline]
        return sum(self._sums[baseline].values()) / count if count else None

    def left(self, one: Running) -> float | None:
        """Seconds that a running trial still takes, 0 for an overdue one; None while that is unknown."""
        mean = self.mean(one.baseline)
        if mean is None:
            return None
        now, sums, count = one.progress, self._sums[one.baseline], self._count[one.baseline]
        if now is None or now.phase not in sums:
            return max(mean - one.age, 0.0)
        phases = list(sums)
        later = sum(sums[phase] for phase in phases[phases.index(now.phase) + 1 :]) / count
        return later + (now.left if now.left is not None else max(sums[now.phase] / count - now.seconds, 0.0))

    def of_sweep(self, running: Sequence[Running], waiting: Mapping[bool, int], slots: int) -> str:
        """'about 2 min 10 s left' for the running trials and so many `waiting` ones, by whether they are baselines."""
        lefts = [self.left(one) for one in running]
        means = {baseline: self.mean(baseline) for baseline, count in waiting.items() if count}
        if None in lefts or None in means.values() or not (lefts or means):
            return UNKNOWN
        known = [one for one in lefts if one is not None]
        if not means and 0.0 in known:
            return "the last trials take longer than those before"
        # an overdue trial shortens no other one's time
        rest = sum(known) + sum(waiting[baseline] * (mean or 0.0) for baseline, mean in means.items())
        return f"about {duration(round(max([rest / max(slots, 1), *known, 1.0])))} left"
