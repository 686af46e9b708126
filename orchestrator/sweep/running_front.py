"""The front of a running sweep, updated with each trial. Exports do not use it: `analysis` computes theirs."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from analysis.metrics.names import Objective
from analysis.stats import pareto
from orchestrator.config import model


class RunningFront:
    """The non-dominated trials among those that were added."""

    def __init__(self, objectives: Sequence[model.Objective]):
        self._objectives = [Objective(**objective.model_dump()) for objective in objectives]
        self._members: dict[int, tuple[str, Sequence[float]]] = {}

    def add(self, number: int, key: str, values: Sequence[float]) -> bool:
        """Adds a trial with finite values in the objectives' order and direction; returns whether it is on the front."""
        candidates = {**self._members, number: (key, values)}
        points = pareto.orient(np.array([values for _, values in candidates.values()]), self._objectives)
        on_front = pareto.front(points, np.ones(len(points), dtype=bool))
        self._members = {one: candidates[one] for one, kept in zip(candidates, on_front, strict=True) if kept}
        return number in self._members

    def rows(self) -> list[dict[str, Any]]:
        """[{number, key, metrics}], sorted from the best in the first objective."""
        metrics, largest_first = (
            [objective.metric for objective in self._objectives],
            self._objectives[0].direction == "maximize",
        )
        ordered = sorted(self._members.items(), key=lambda item: (item[1][1][0] * (-1 if largest_first else 1), item[0]))
        return [
            {"number": number, "key": key, "metrics": dict(zip(metrics, values, strict=True))}
            for number, (key, values) in ordered
        ]

    def __len__(self) -> int:
        return len(self._members)
