"""Settings as vectors for a Gaussian process, in groups of columns that share a length scale.

A number is one column in [0, 1], on its own scale. Numeric choices are equidistant in their order. Other choices are one-hot,
any two of them a distance of 1 apart. A simplex has its shares. An axis that is not active stands at its middle.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from orchestrator.config.model import SweepConfig
from orchestrator.config.parameters import Categorical, Float, Int
from orchestrator.config.space import Mixture, Pairs, Single
from orchestrator.search.looks import ROWS, rows_unit


class _Number:
    """A range, as one column."""

    def __init__(self, path: str, parameter: Float | Int):
        self.paths, self.middle = [path], [0.5]
        self._log = parameter.log
        self._low, high = self._scaled(np.array([parameter.low, parameter.high], dtype=float))
        self._span = high - self._low

    def of(self, values: Sequence[Sequence[Any]]) -> np.ndarray:
        found: np.ndarray = (self._scaled(np.array(values, dtype=float)) - self._low) / self._span
        return found

    def _scaled(self, values: np.ndarray) -> np.ndarray:
        return np.log(values) if self._log else values


class _Choice:
    """Distinct values of one path."""

    def __init__(self, path: str, choices: Sequence[Any]):
        self.paths = [path]
        numbers = all(isinstance(choice, int | float) and not isinstance(choice, bool) for choice in choices)
        ordered = sorted(choices) if numbers else choices
        self._places = {_key(choice): place for place, choice in enumerate(ordered)}
        if len(choices) == 2 or numbers:
            self._rows, self.middle = np.linspace(0, 1, len(choices))[:, None], [0.5]
        else:
            # two one-hot rows of this height are a distance of 1 apart
            self._rows, self.middle = math.sqrt(0.5) * np.eye(len(choices)), [0.0] * len(choices)

    def of(self, values: Sequence[Sequence[Any]]) -> np.ndarray:
        found: np.ndarray = self._rows[[self._places[_key(value)] for (value,) in values]]
        return found


class _Shares:
    """A simplex. Two shares are one number."""

    def __init__(self, axis: Mixture):
        self.paths = list(axis.paths) if len(axis.paths) > 2 else list(axis.paths[:1])
        self._total = axis.total
        self.middle = [1 / len(axis.paths)] * len(self.paths)

    def of(self, values: Sequence[Sequence[Any]]) -> np.ndarray:
        return np.array(values) / self._total


class _Rows:
    """The share of the training rows after which a trial was seen, as one column; a point without it stands for all of them."""

    def __init__(self) -> None:
        self.paths, self.middle = [ROWS], [rows_unit(1.0)]

    def of(self, values: Sequence[Sequence[Any]]) -> np.ndarray:
        return np.array([[rows_unit(share)] for (share,) in values])


def _key(value: Any) -> tuple[bool, Any]:
    # True is no 1; a list of the config is a tuple in a spec, and has no hash
    return isinstance(value, bool), tuple(value) if isinstance(value, list) else value


class Features:
    def __init__(self, config: SweepConfig):
        self._parts: list[_Number | _Choice | _Shares | _Rows] = []
        for axis in config.axes:
            if isinstance(axis, Mixture):
                self._parts.append(_Shares(axis))
            elif isinstance(axis, Pairs):
                for path in axis.paths:
                    self._add_choice(path, [point[path] for point in axis.choices])
            elif isinstance(axis, Single) and isinstance(axis.parameter, Categorical):
                self._add_choice(axis.path, axis.parameter.choices)
            elif isinstance(axis, Single) and axis.parameter.low < axis.parameter.high:  # type: ignore[union-attr]
                self._parts.append(_Number(axis.path, axis.parameter))  # type: ignore[arg-type]
        if self._parts and config.search.multi_fidelity:
            self._parts.append(_Rows())
        self.groups = np.repeat(np.arange(len(self._parts)), [len(part.middle) for part in self._parts])
        """Shape (c,): the group of each column, 0 to g - 1."""

    def _add_choice(self, path: str, choices: Sequence[Any]) -> None:
        distinct = list({_key(choice): choice for choice in choices}.values())
        if len(distinct) > 1:
            self._parts.append(_Choice(path, distinct))

    def rows(self, points: Sequence[Mapping[str, Any]]) -> np.ndarray:
        """Shape (n, c). A point is settings, and may have looks.ROWS."""
        found = np.empty((len(points), len(self.groups)))
        start = 0
        for part in self._parts:
            end = start + len(part.middle)
            found[:, start:end] = part.middle
            active = [place for place, point in enumerate(points) if part.paths[0] in point]
            if active:
                found[active, start:end] = part.of([[points[place][path] for path in part.paths] for place in active])
            start = end
        return found
