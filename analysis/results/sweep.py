"""A sweep as its results are read: frames of trials, baselines and failures, the records behind them, and the front."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

from analysis.metrics.names import Constraint, Criteria, Objective
from analysis.results.schema import STATES, State, searched
from analysis.stats import pareto
from analysis.stats.intervals import TAILS
from trials.ledger.outcomes import Half
from trials.ledger.record import Ledger, TrialRecord


@dataclass(frozen=True, eq=False)  # a sweep equals itself alone: what costs seconds is cached by it
class Sweep:
    """Metric values are shares (0..1), under "ROLE.KIND"; `schema` names the columns that a metric has beside its value."""

    folder: Path
    name: str
    objectives: tuple[Objective, ...]
    constraints: tuple[Constraint, ...]
    space: tuple[str, ...]
    """Dotted paths that were searched, in the config's order."""
    budget: int | None
    config: str
    """The text of sweep.yaml; empty where there is none."""
    metrics: tuple[str, ...]
    """Names of all metrics that the trials have."""
    half: Half | None
    """The half of the documents that the metrics are quoted on, "report"; None where they are quoted on all."""
    trials: pd.DataFrame
    """A row per trial by number: number, key (of its first replicate; empty for a point that is no valid trial), replicates,
    baseline, state, the dotted paths, the metrics (means over the replicates), paired (all its standard errors of differences
    are paired over documents), seconds (of all phases and replicates), failure (text, empty where there is none), feasible
    (complete, and every constraint kept), front_rank (-1: takes no part), on_front (no trial and no base dominates it), p_front
    (probability to be on the front), p_feasible, correlation (between the errors of the first two objectives)."""
    baselines: pd.DataFrame
    """A row per baseline: key, state, trials (how many are measured against it), per role ROLE.value, its standard error and
    ROLE.n (documents), seconds, failure. The base is also a point: it has the metrics that decide (a gain of 0) and, as a trial
    has, feasible, front_rank, on_front and p_front."""
    failures: pd.DataFrame
    """A row per failure: what ("baseline", "trial 3", "trial 3, replicate 2"), key, kind, message, traceback."""
    records: dict[str, TrialRecord]
    """By key: every record that could be read, baselines included."""
    reference: tuple[float, ...]
    """See pareto.reference_point; one number per objective."""
    draws: np.ndarray
    """Shape (draws, trials in the frame's order, judged): joint draws of the true values of the metrics `judged`, given
    all documents; NaN for a trial that has not all of them. Documents weigh the same in the draws of all sweeps."""
    base_draws: np.ndarray
    """The same for the baselines, in their frame's order."""

    @property
    def ledger(self) -> Ledger:
        return Ledger(self.folder.parent)

    @property
    def hub_mirror(self) -> str | None:
        """The config's; None where it has none, or where sweep.yaml is damaged (the next run writes it anew)."""
        try:
            found = yaml.safe_load(self.config)
        except (yaml.YAMLError, ValueError, RecursionError):
            return None
        mirror = found.get("hub_mirror") if isinstance(found, dict) else None
        return mirror if isinstance(mirror, str) else None

    def volumes(self, front: np.ndarray, objectives: Sequence[Objective], reference: Sequence[float]) -> np.ndarray:
        """Hypervolumes (draws,) of the trials `front` (places in the frame) and the feasible bases, from `reference`, for each
        draw of their true values. One volume, of the quoted values, where a trial has no draws."""
        feasible = self.baselines["feasible"].to_numpy(dtype=bool)
        columns = [self.judged.index(one.metric) for one in objectives]
        points = np.concatenate([self.draws[:, front], self.base_draws[:, feasible]], axis=1)[:, :, columns]
        if not np.isfinite(points[:, : len(front)]).all():
            rows = pd.concat([self.trials.iloc[front], self.baselines[feasible]])
            points = rows[[one.metric for one in objectives]].to_numpy(dtype=float)[None]
        oriented = pareto.orient(np.array(reference), objectives)
        return np.array([pareto.hypervolume(one, oriented) for one in pareto.orient(points, objectives)])

    @cached_property
    def _front_volumes(self) -> np.ndarray:
        return self.volumes(np.flatnonzero(self.trials["on_front"]), self.objectives, self.reference)

    @property
    def hypervolume(self) -> float | None:
        """Expected hypervolume of the front and the bases from `reference`; None while there is no front."""
        return float(self._front_volumes.mean()) if self.trials["on_front"].any() else None

    @property
    def hypervolume_interval(self) -> tuple[float, float] | None:
        """95 % interval of the hypervolume; None without a front or draws."""
        if not self.trials["on_front"].any() or len(self._front_volumes) == 1:
            return None
        low, high = np.percentile(self._front_volumes, TAILS)
        return float(low), float(high)

    @property
    def replicates(self) -> int:
        """The most seeds that a setting was trained with; at least 1."""
        return max([1, *self.trials["replicates"]])

    @property
    def criteria(self) -> Criteria:
        return Criteria(self.objectives, self.constraints)

    @property
    def judged(self) -> tuple[str, ...]:
        """The metrics that decide."""
        return self.criteria.metrics

    @property
    def complete(self) -> pd.DataFrame:
        """The rows of `trials` that are complete."""
        return self.trials[self.trials["state"] == "complete"]

    @property
    def complete_baselines(self) -> pd.DataFrame:
        return self.baselines[self.baselines["state"] == "complete"]

    @property
    def complete_records(self) -> list[TrialRecord]:
        return [record for record in self.records.values() if record.state == "complete"]

    @property
    def states(self) -> dict[State, int]:
        """How many trials are in each state."""
        found = Counter(self.trials["state"])
        return {state: found[state] for state in STATES}

    @property
    def front(self) -> pd.DataFrame:
        """The rows of `trials` on the front, the best in the first objective first, on the documents that the search saw."""
        rows = self.trials[self.trials["on_front"]]
        # The best by the quoted values would owe its place to their luck. The number breaks ties, for equal files.
        ascending = self.objectives[0].direction == "minimize"
        return rows.sort_values([searched(self.objectives[0].metric), "number"], ascending=[ascending, True])
