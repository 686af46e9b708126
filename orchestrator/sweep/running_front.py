"""The front of a running sweep, kept up trial by trial. What is exported is judged anew by `analysis`."""

from collections.abc import Sequence
from typing import Any

from analysis.metrics.names import Objective


class RunningFront:
    """The non-dominated among the trials that were added."""

    def __init__(self, objectives: Sequence[Objective]):
        self._metrics = [objective.metric for objective in objectives]
        self._signs = [1.0 if objective.direction == "maximize" else -1.0 for objective in objectives]
        self._members: dict[int, tuple[str, list[float]]] = {}

    def add(self, number: int, key: str, values: Sequence[float]) -> bool:
        """True when the trial (values in the objectives' order and direction) is on the front and changes it."""
        new = [sign * value for sign, value in zip(self._signs, values, strict=True)]
        if any(_dominates(old, new) for _, old in self._members.values()):
            return False
        self._members = {other: member for other, member in self._members.items() if not _dominates(new, member[1])}
        self._members[number] = (key, new)
        return True

    def rows(self) -> list[dict[str, Any]]:
        """[{number, key, metrics}], the best in the first objective first."""
        ordered = sorted(self._members.items(), key=lambda item: (-item[1][1][0], item[0]))
        return [
            {
                "number": number,
                "key": key,
                "metrics": {name: sign * value for name, sign, value in zip(self._metrics, self._signs, values, strict=True)},
            }
            for number, (key, values) in ordered
        ]

    def __len__(self) -> int:
        return len(self._members)


def _dominates(one: Sequence[float], other: Sequence[float]) -> bool:
    return all(a >= b for a, b in zip(one, other, strict=True)) and any(a > b for a, b in zip(one, other, strict=True))
