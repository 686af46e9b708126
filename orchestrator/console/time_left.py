"""How long running and waiting trials still take, from the seconds of finished ones. Without any, nothing is guessed."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from analysis.formatting.numbers import duration
from trials.ledger.trial_progress import TrialProgress

UNKNOWN = "time left not known yet"
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
        self._count = {True: 0, False: 0}
        self._sums: dict[bool, dict[str, float]] = {True: {}, False: {}}  # by phase

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
        mean = self.mean(one.baseline)
        if mean is None:
            return None
        now, count = one.progress, self._count[one.baseline]
        means = {phase: spent / count for phase, spent in self._sums[one.baseline].items()}
        if now is None or now.phase not in means:
            return max(mean - one.age, 0.0), 0.0
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
        means = {baseline: self.mean(baseline) for baseline, count in waiting.items() if count}
        if None in lefts or None in means.values() or not (lefts or means):
            return UNKNOWN
        known = [one for one in lefts if one is not None]
        if not means and 0.0 in known:
            return "the last trials take longer than those before"
        # an overdue trial shortens no other one's time
        work = [spent for one in running if (spent := self._work(one)) is not None]
        rest = sum(work) + sum(waiting[baseline] * (mean or 0.0) for baseline, mean in means.items())
        return f"about {duration(round(max([rest / max(slots, 1), *known, 1.0])))} left"


def _rank(phase: str) -> int:
    return _ORDER.index(phase) if phase in _ORDER else len(_ORDER)
