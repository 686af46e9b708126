"""How long running and waiting trials still take, from the seconds of finished ones. Without any, nothing is guessed."""

from collections import defaultdict
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
        self._finished: dict[bool, list[dict[str, float]]] = defaultdict(list)

    def add(self, seconds: Mapping[str, float], baseline: bool) -> None:
        self._finished[baseline].append(dict(seconds))

    def mean(self, baseline: bool) -> float | None:
        """Mean seconds of a finished trial; None while there is none."""
        found = [sum(one.values()) for one in self._finished[baseline]]
        return sum(found) / len(found) if found else None

    def left(self, one: Running) -> float | None:
        """Seconds that a running trial still takes, 0 for an overdue one; None while that is unknown."""
        mean = self.mean(one.baseline)
        if mean is None:
            return None
        now = one.progress
        phases = self._phases(one.baseline)
        if now is None or now.phase not in phases:
            return max(mean - one.age, 0.0)
        names = list(phases)
        later = sum(phases[name] for name in names[names.index(now.phase) + 1 :])
        this = now.left if now.left is not None else max(phases[now.phase] - now.seconds, 0.0)
        return this + later

    def _phases(self, baseline: bool) -> dict[str, float]:
        """Mean seconds of each phase, in the trials' order."""
        finished = self._finished[baseline]
        names = dict.fromkeys(name for one in finished for name in one)
        return {name: sum(one.get(name, 0.0) for one in finished) / len(finished) for name in names}

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
