"""The paper's failure signatures and results (arXiv 2506.10885), and which trials of a sweep show the signatures."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd

from analysis.formatting import labels
from analysis.metrics.definitions import RATES
from analysis.metrics.names import Objective, split_metric
from analysis.results import schema as col
from analysis.results.sweep import Sweep

Verdict = Literal["yes", "no", "cannot tell", "not measured"]


@dataclass(frozen=True)
class Signature:
    """`metric` above `bound`, a share."""

    name: str
    metric: str
    bound: float
    words: str


SIGNATURES = (
    Signature("math collapse", "math.forgetting", 0.80, "math lost more than 80 % of its score"),
    Signature("knowledge loss", "knowledge.drop", 0.10, "knowledge fell by more than 10 points"),
)

PAPER: tuple[dict[str, Any], ...] = (
    {
        "model": "Llama 3.2 1B",
        "samples": 2000,
        "commonsense.base": 0.6077,
        "commonsense.value": 0.6120,
        "math.forgetting": 0.88,
        "knowledge.drop": 0.13,
    },
    {"model": "TinyLlama 1.1B", "samples": 50000, "commonsense.base": 0.5920, "commonsense.value": 0.5926},
)
"""Shares. `math.forgetting` is "above"; TinyLlama's base is its published score, not the paper's."""

CAVEATS = (
    "Read the paper's rows with care: its Llama baseline of 60.77 is probably the Instruct model's, and 60.77 to 61.20 is 43 "
    "of 10,042 documents, z = 0.62 without pairing, from one seed; 59.20 is TinyLlama's published score and not measured in "
    "the paper. Its numbers are HellaSwag, GSM8K and MMLU computer science: another task in a role compares in kind only."
)


_ROLES = ("commonsense", "math")


def in_papers_roles(sweep: Sweep) -> bool:
    """Whether the sweep has the roles of the paper's table, and no task of a user's own in them."""
    asked = [record.spec.eval[role] for record in sweep.records.values() for role in _ROLES if role in record.spec.eval]
    return all(f"{role}.value" in sweep.metrics for role in _ROLES) and not any(one.include for one in asked)


def paper_point(objectives: Sequence[Objective]) -> list[float] | None:
    """The paper's Llama 3.2 1B in these objectives (shares); None where the paper lacks one of them, or the
    role's score is no share."""
    if not all(labels.is_share(one.metric) for one in objectives):
        return None
    llama = PAPER[0]
    gain = llama["commonsense.value"] - llama["commonsense.base"]
    known = llama | {"commonsense.gain": gain, "commonsense.drop": -gain, "knowledge.gain": -llama["knowledge.drop"]}
    return [known[one.metric] for one in objectives] if all(one.metric in known for one in objectives) else None


def verdicts(sweep: Sweep) -> pd.DataFrame:
    """Whether each trial shows each signature, by the 95 % interval of its metric: a column per signature, a row per trial."""
    return pd.DataFrame({one.name: _verdicts(sweep, one) for one in SIGNATURES}, index=sweep.trials.index)


def _verdicts(sweep: Sweep, signature: Signature) -> np.ndarray:
    """Shape (trials,)."""
    trials = sweep.trials
    if signature.metric not in trials or not _judges(sweep, signature.metric):
        return np.full(len(trials), "not measured", dtype=object)
    found = trials[signature.metric].to_numpy(dtype=float)
    low, high = (trials[end].to_numpy(dtype=float) for end in col.ends(signature.metric))
    cases = [np.isnan(found), low > signature.bound, high <= signature.bound]
    return np.select(cases, ["not measured", "yes", "no"], "cannot tell").astype(object)


def _judges(sweep: Sweep, metric: str) -> bool:
    """Whether the bound means what the signature says: a rate of a score that is better when higher, or a part of a share."""
    role, kind = split_metric(metric)
    if kind in RATES:
        return all(record.scale(role).higher_is_better for record in sweep.records.values())
    return labels.is_share(metric)


def flags(row: pd.Series) -> str:
    """A row of `verdicts` as text: "math collapse, knowledge loss?". A question mark stands for "cannot tell"."""
    marks = {"yes": "", "cannot tell": "?"}
    return ", ".join(f"{name}{marks[verdict]}" for name, verdict in row.items() if verdict in marks)
