"""A table of real trials that samplers search: `python -m tests.benchmarks.search.table FOLDER` stores a sweep of table.yaml.

Each point of a grid over micro's settings was trained once. The truth of a setting are its answers to all documents; a sweep
sees those to as many as the quickstart's searched half has, drawn anew for each seed.
"""

import sys
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from analysis import load
from analysis.stats import pareto
from analysis.stats.paired_outcomes import answers
from orchestrator.config.model import SweepConfig
from tests.benchmarks.search.families import DOCUMENTS, judged, reference
from tests.benchmarks.search.world import metrics_and_errors
from trials.ledger.outcomes import ALL

_HERE = Path(__file__).parent
_STORED = _HERE / "table.npz"
Settings = Mapping[str, Any]


class Table:
    """The counterpart of a synthetic family."""

    name = "table"

    def __init__(self, stored: Path = _STORED):
        self._stored = stored

    @cached_property
    def _parts(self) -> dict[str, Any]:
        found: dict[str, Any] = yaml.safe_load((_HERE / "table.yaml").read_text(encoding="utf-8"))
        return found

    @cached_property
    def constraint(self) -> str:
        return str(self._parts["search"]["constraints"][0])

    def config(self, sampler: str, trials: int, seed: int, **search: Any) -> SweepConfig:
        wanted = {"sampler": sampler, "trials": trials, "seed": seed, **search}
        return SweepConfig.model_validate(self._parts | {"search": self._parts["search"] | wanted})

    @cached_property
    def base(self) -> dict[str, np.ndarray]:
        """Right answers (n,) of the base by role."""
        with np.load(self._stored) as stored:
            return {role: np.unpackbits(stored[f"{role}.base"], count=int(stored[f"{role}.n"])) for role in DOCUMENTS}

    @cached_property
    def tuned(self) -> dict[tuple[float, ...], dict[str, np.ndarray]]:
        """Right answers (n,) by settings, in the order of the space, and role."""
        with np.load(self._stored) as stored:
            settings = [tuple(row) for row in stored["settings"].tolist()]
            roles = {role: np.unpackbits(stored[role], axis=1, count=len(self.base[role])) for role in DOCUMENTS}
        return {one: {role: roles[role][place] for role in DOCUMENTS} for place, one in enumerate(settings)}

    def answers(self, settings: Settings) -> dict[str, np.ndarray]:
        return self.tuned[tuple(float(settings[path]) for path in self._parts["space"])]

    def truth(self, settings: Settings) -> tuple[np.ndarray, bool]:
        """As of a synthetic family."""
        return self._judged(self.answers(settings))

    def _judged(self, found: Mapping[str, np.ndarray]) -> tuple[np.ndarray, bool]:
        accuracy, base = ({role: float(own.mean()) for role, own in side.items()} for side in (found, self.base))
        return judged(accuracy, base, self.constraint)

    @cached_property
    def reference(self) -> np.ndarray:
        return reference(self.config("random", 1, 0))

    @cached_property
    def front(self) -> np.ndarray:
        """The best front (n, 2), oriented."""
        told = [self._judged(one) for one in self.tuned.values()]
        values = np.array([value for value, _ in told])
        feasible = np.array([kept for _, kept in told]) & (values < self.reference).all(axis=1)
        return values[pareto.front(values, feasible)]

    @cached_property
    def best(self) -> float:
        return pareto.hypervolume(self.front, self.reference)

    def world(self, seed: int) -> "TableWorld":
        return TableWorld(self, seed)


class TableWorld:
    """A draw of documents."""

    def __init__(self, table: Table, seed: int):
        random = np.random.default_rng(seed)
        self._table = table
        self._drawn = {role: random.choice(len(own), DOCUMENTS[role], replace=False) for role, own in table.base.items()}

    def measure(self, settings: Settings) -> tuple[dict[str, float], dict[str, float]]:
        """(metrics, their standard errors), as of a synthetic world."""
        sides = (self._table.answers(settings), self._table.base)
        tuned, base = ({role: own[self._drawn[role]].astype(float) for role, own in side.items()} for side in sides)
        return metrics_and_errors(tuned, base)


def store(folder: str, stored: Path = _STORED) -> None:
    """Writes the answers of a sweep's trials."""
    sweep = load(folder)
    rows = sweep.complete
    base = sweep.records[rows["baseline"].iloc[0]]
    found: dict[str, Any] = {"settings": rows[list(sweep.space)].to_numpy(dtype=float)}
    for role in DOCUMENTS:
        pairs = answers([[sweep.records[key]] for key in rows["key"]], base, role, ALL)
        assert pairs is not None
        found[role] = np.packbits(pairs[0].tuned["score"][:, 0].astype(bool), axis=1)
        found[f"{role}.base"] = np.packbits(pairs[0].base["score"].astype(bool))
        found[f"{role}.n"] = pairs[0].n
    np.savez_compressed(stored, **found)


if __name__ == "__main__":
    store(sys.argv[1])
