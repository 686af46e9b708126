"""The front of a running sweep, updated with each trial. Exports are judged again by `analysis`."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from analysis.metrics.names import Objective
from analysis.stats import pareto


class RunningFront:
    """The non-dominated among the trials that were added."""

    def __init__(self, objectives: Sequence[Objective]):
        self._objectives = objectives
        self._members: dict[int, tuple[str, np.ndarray]] = {}

    def add(self, number: int, key: str, values: Sequence[float]) -> bool:
        """True when the trial (values in the objectives' order and direction) is on the front and changes it."""
        new = pareto.orient(np.array(values), self._objectives)
        if any(pareto.dominates(old, new) for _, old in self._members.values()):
            return False
        self._members = {other: member for other, member in self._members.items() if not pareto.dominates(new, member[1])}
        self._members[number] = (key, new)
        return True

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

    def __len__(self) -> int:
        return len(self._members)
