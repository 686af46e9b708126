"""The front of a running sweep, updated with each trial and each base. Exports are judged again by `analysis`."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from analysis.metrics.names import Objective
from analysis.stats import pareto


class RunningFront:
    """The trials, among those that were added, that no other trial and no base dominates."""

    def __init__(self, objectives: Sequence[Objective]):
        self._objectives = objectives
        self._members: dict[int, tuple[str, np.ndarray]] = {}
        self._bases: dict[str, np.ndarray] = {}

    def add(self, number: int, key: str, values: Sequence[float]) -> bool:
        """True when the trial (values in the objectives' order and direction) is on the front and changes it."""
        new = pareto.orient(np.array(values), self._objectives)
        if any(pareto.dominates(old, new) for old in [*self._bases.values(), *(old for _, old in self._members.values())]):
            return False
        self._drop_dominated(new)
        self._members[number] = (key, new)
        return True

    def add_base(self, key: str, values: Sequence[float]) -> None:
        """The model that nobody trained is a point too; `key` is its baseline's, NaN an objective that it has no value for."""
        base = pareto.orient(np.array(values), self._objectives)
        self._bases[key] = base
        self._drop_dominated(base)

    def behind_base(self, values: Sequence[float]) -> float:
        """How far a trial is behind a base in the objective where it does best: above 0 where it is worse in all of them.

        In the objectives' own units, which its sign does not depend on. The largest over the bases, 0 without one.
        """
        new = pareto.orient(np.array(values), self._objectives)
        return max((float(np.min(new - base)) for base in self._bases.values() if np.isfinite(base).all()), default=0.0)

    def _drop_dominated(self, by: np.ndarray) -> None:
        self._members = {number: member for number, member in self._members.items() if not pareto.dominates(by, member[1])}

    def rows(self) -> list[dict[str, Any]]:
        """[{number, key, metrics}], the best in the first objective first."""
        names = [objective.metric for objective in self._objectives]
        ordered = sorted(self._members.items(), key=lambda item: (item[1][1][0], item[0]))
        return [
            # orienting twice restores the metrics' own directions
            {
                "number": number,
                "key": key,
                "metrics": dict(zip(names, pareto.orient(new, self._objectives).tolist(), strict=True)),
            }
            for number, (key, new) in ordered
        ]

    @property
    def bases(self) -> list[str]:
        """Keys of the baselines whose bases are points."""
        return list(self._bases)

    def __len__(self) -> int:
        return len(self._members)
