"""What a trial's scores mean beside its baseline's: gain, drop, forgetting, their standard errors, and constraints on them.

A metric is named "ROLE.KIND". Values are shares (0..1), never percentages; KIND is one of
    value       the trial's own score
    base        its baseline's score
    gain        value - base
    drop        base - value
    forgetting  (base - value) / base, the paper's forgetting rate (arXiv 2506.10885); undefined where base is 0
or one of PART_KINDS, which take the forgetting of a role apart, or, of the role `learning`, one of LEARNING_KINDS; what these
are says `dissect`.
"""

import difflib
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from trials.errors import InputError
from trials.record import Score

KINDS = ("value", "gain", "drop", "forgetting", "base")
CLASSES = ("word", "digit", "operator", "format")  # of a gold solution's tokens
MARKER_KINDS = ("format_forgetting", "skill_forgetting", "marker_drop", "stopped_drop")
FLEXIBLE_KINDS = ("flexible_drop",)
GOLD_KINDS = ("gold_bpb", "gold_bpb_delta")
CLASS_KINDS = tuple(f"gold_bpb_{part}_delta" for part in CLASSES)
PART_KINDS = (*MARKER_KINDS, *FLEXIBLE_KINDS, *GOLD_KINDS, *CLASS_KINDS)
LEARNING = "learning"  # no benchmark's role: what the training did to rows that are held out of it
LEARNING_KINDS = ("loss", "gain", "kl", "reverse_kl")
ROUNDING = 1e-9  # what the arithmetic of shares may be off by
IDENTITY = ["task", "doc_hash"]  # of a document, within its role


@dataclass(frozen=True)
class Estimate:
    """A metric's value and its standard error (None where it is unknown), in the metric's own unit."""

    value: float
    stderr: float | None
    paired: bool = False
    """Whether the standard error is paired over documents."""
    sd: float | None = None
    """Sample standard deviation between replicates; None for a single one, and for what has none (the base)."""


@dataclass(frozen=True)
class Objective:
    metric: str
    direction: Literal["maximize", "minimize"]


@dataclass(frozen=True)
class Constraint:
    """A bound that a trial's metric has to keep."""

    metric: str
    op: Literal["<=", ">="]
    bound: float

    def violation(self, value: float | None) -> float:
        """How far `value` is beyond the bound, in the metric's unit: <= 0 is feasible; an undefined value never is (inf)."""
        if value is None or math.isnan(value):
            return math.inf
        beyond = value - self.bound if self.op == "<=" else self.bound - value
        # 36 right after 40 forget 0.10000000000000009: a document more or less is never as little as that
        return 0.0 if abs(beyond) < ROUNDING else beyond

    def __str__(self) -> str:
        return f"{self.metric} {self.op} {self.bound!r}"


def metric_names(roles: Iterable[str]) -> list[str]:
    """The metrics that every role has, role by role."""
    return [f"{role}.{kind}" for role in roles for kind in KINDS]


def split_metric(name: str, roles: Iterable[str] | None = None) -> tuple[str, str]:
    """Role and kind of a metric's name; an InputError names what is right. With `roles` the role must be one of them."""
    role, _, kind = name.partition(".")
    kinds = LEARNING_KINDS if role == LEARNING else (*KINDS, *PART_KINDS)
    if not role.isidentifier() or kind not in kinds:
        near = difflib.get_close_matches(kind, kinds, 1)
        hint = f"; did you mean {role}.{near[0]}?" if near and role.isidentifier() else ""
        raise InputError(f"a metric is ROLE.KIND with KIND one of {', '.join(kinds)}, but got {name!r}{hint}")
    if roles is not None and role not in (known := sorted(roles)) and role != LEARNING:
        raise InputError(f"{name}: no benchmark has the role {role!r}; the roles are {', '.join(known)}")
    return role, kind


def parse_constraint(text: str, roles: Iterable[str] | None = None) -> Constraint:
    """ "math.forgetting <= 0.10" as a Constraint; an InputError names what is right."""
    match = re.fullmatch(r"\s*([^\s<>=]+)\s*([<>=]+)\s*(\S+)\s*", text)
    shape = f'a constraint reads "METRIC <= NUMBER" or "METRIC >= NUMBER", as "math.forgetting <= 0.10", but got {text!r}'
    if match is None:
        raise InputError(shape)
    metric, op, number = match.groups()
    split_metric(metric, roles)
    try:
        bound = float(number)
    except ValueError:
        bound = math.nan
    if not math.isfinite(bound):
        raise InputError(shape)
    if op == "<=":
        return Constraint(metric, "<=", bound)
    if op == ">=":
        return Constraint(metric, ">=", bound)
    raise InputError(shape)


def trial_metrics(
    scores: Mapping[str, Score],
    base_scores: Mapping[str, Score] | None,
    documents: pd.DataFrame | None = None,
    base_documents: pd.DataFrame | None = None,
) -> dict[str, Estimate | None]:
    """Every metric of a trial by name; None where it is undefined (no baseline, base 0 for a forgetting rate).

    `documents` and `base_documents` are the records' per-document frames (columns role, task, doc_hash, score). They change the
    standard errors alone, which are paired where both frames hold the same documents of a role; see `role_metrics`.
    """
    found: dict[str, Estimate | None] = {}
    for role, score in scores.items():
        base = (base_scores or {}).get(role)
        pairs = None
        if base is not None and documents is not None and base_documents is not None:
            pairs = pair(documents, base_documents, role)
        found |= {f"{role}.{kind}": estimate for kind, estimate in role_metrics(score, base, pairs).items()}
    return found


def replicate_metrics(
    scores: Sequence[Mapping[str, Score]],
    base_scores: Mapping[str, Score] | None,
    documents: Sequence[pd.DataFrame | None],
    base_documents: pd.DataFrame | None,
) -> dict[str, Estimate | None]:
    """Every metric of a setting that was trained R times, under R seeds: the mean over these replicates.

    `scores` and `documents` hold an entry a replicate. All replicates are scored on the same n documents, so their R n outcomes
    are not independent: seeds and documents are crossed, outcome = mean + seed_r + document_i + rest_ri, and the mean's
    variance is var(seed) / R + var(document) / n + var(rest) / (R n). It is estimated as in clustering two ways (Cameron,
    Gelbach and Miller 2011, doi:10.1198/jbes.2010.07136), by the sum of both one-way variances:

        se^2 = sd^2 / R + se_documents^2

    with sd the standard deviation between the replicates' values and se_documents the standard error of `trial_metrics` on
    each document's mean over the replicates. Their last term, the estimate of var(rest) / (R n), is not taken off again: both
    parts hold it, so se is on the wide side, and it is never below what either level alone says. Where the documents of the
    replicates do not match, se_documents is taken from the mean of the replicates' own variances, not divided by R.
    """
    each = zip(scores, documents, strict=True)
    single = [trial_metrics(one, base_scores, frame, base_documents) for one, frame in each]
    if len(single) == 1:
        return single[0]
    averaged = _mean_documents(documents)
    means = _mean_scores(scores, averaged)
    found = trial_metrics(means, base_scores, averaged, base_documents)
    return {name: _with_spread(estimate, name, [one.get(name) for one in single]) for name, estimate in found.items()}


def _with_spread(mean: Estimate | None, name: str, replicates: Sequence[Estimate | None]) -> Estimate | None:
    if mean is None or name.endswith(".base"):
        return mean
    values = [one.value for one in replicates if one is not None]
    sd = float(np.std(values, ddof=1))
    stderr = None if mean.stderr is None else math.hypot(mean.stderr, sd / math.sqrt(len(values)))
    return Estimate(mean.value, stderr, mean.paired, sd)


def _mean_scores(scores: Sequence[Mapping[str, Score]], documents: pd.DataFrame | None) -> dict[str, Score]:
    """Mean of each role that all replicates have; its standard error is over documents alone."""
    found = {}
    for role in scores[0]:
        if all(role in one for one in scores):
            own = [one[role] for one in scores]
            stderr = math.sqrt(float(np.mean([score.stderr**2 for score in own])))
            if documents is not None and len(outcomes := documents.loc[documents["role"] == role, "score"]) > 1:
                stderr = float(outcomes.std(ddof=1) / math.sqrt(len(outcomes)))
            found[role] = Score(value=float(np.mean([score.value for score in own])), stderr=stderr, n=own[0].n)
    return found


def _mean_documents(documents: Sequence[pd.DataFrame | None]) -> pd.DataFrame | None:
    """A frame with each document's mean outcome; None where the replicates have not all answered the same documents."""
    frames = [frame for frame in documents if frame is not None]
    if len(frames) < len(documents):
        return None
    identity = ["role", *IDENTITY]
    numbered = [frame.assign(copy=frame.groupby(identity).cumcount()) for frame in frames]
    groups = pd.concat(numbered).groupby([*identity, "copy"], sort=False)["score"]
    if (groups.count() != len(frames)).any():
        return None
    return groups.mean().reset_index()


def role_metrics(
    tuned: Score, base: Score | None, pairs: tuple[np.ndarray, np.ndarray] | None = None
) -> dict[str, Estimate | None]:
    """The metrics of one role by kind. `pairs` holds the tuned and the base outcome of each document, both of shape (n,).

    Standard errors of gain and drop: with pairs std(tuned_i - base_i) / sqrt(n), the spread (n - 1 in the denominator) of the
    per-document difference; without, sqrt(se_tuned^2 + se_base^2) as for two independent samples, too wide for documents that
    both have answered. Of forgetting = 1 - r with r = tuned / base: the delta method, which for a ratio of means is
    std(tuned_i - r base_i) / (base sqrt(n)) with pairs and sqrt(se_tuned^2 + r^2 se_base^2) / base without.
    """
    value = _estimate(tuned.value, tuned.stderr)
    if base is None or value is None or (start := _estimate(base.value, base.stderr)) is None:
        return {"value": value} | dict.fromkeys(("gain", "drop", "forgetting", "base"))
    difference = base.value - tuned.value
    spread = _difference_stderr(tuned, base, 1.0, pairs)
    forgetting = None
    if base.value != 0:
        ratio_spread = _difference_stderr(tuned, base, tuned.value / base.value, pairs)
        forgetting = _estimate(difference / base.value, ratio_spread / base.value, pairs is not None)
    gain, drop = (_estimate(sign * difference, spread, pairs is not None) for sign in (-1.0, 1.0))
    return {"value": value, "gain": gain, "drop": drop, "forgetting": forgetting, "base": start}


def pair(documents: pd.DataFrame, base_documents: pd.DataFrame, role: str) -> tuple[np.ndarray, np.ndarray] | None:
    """The outcomes of a role's documents, tuned and base, each of shape (n,) and in one order.

    None where they do not pair: another set of documents, an outcome that is missing, or fewer than two documents.
    """
    found = paired_columns(documents, base_documents, role, ["score"])
    return None if found is None else (found[0][0], found[1][0])


def paired_columns(
    documents: pd.DataFrame, base_documents: pd.DataFrame, role: str, columns: Sequence[str]
) -> tuple[list[np.ndarray], list[np.ndarray]] | None:
    """These columns of a role's documents, tuned and base, each of shape (n,) and in one order; None where `pair` has none."""
    if not all(column in frame for frame in (documents, base_documents) for column in columns):
        return None
    tuned, base = (_outcomes(frame, role, columns) for frame in (documents, base_documents))
    joined = tuned.join(base, how="outer", lsuffix="_tuned", rsuffix="_base")
    if len(joined) < 2 or joined.isna().to_numpy().any():
        return None
    sides = [[joined[f"{column}_{side}"].to_numpy(dtype=float) for column in columns] for side in ("tuned", "base")]
    return sides[0], sides[1]


def _outcomes(documents: pd.DataFrame, role: str, columns: Sequence[str] = ("score",)) -> pd.DataFrame:
    """Columns of one role, indexed by what a document is known by."""
    rows = documents.loc[documents["role"] == role, [*IDENTITY, *columns]]
    # a data set may hold a document twice: its copies are told apart by their order, or a join would multiply them
    return rows.assign(copy=rows.groupby(IDENTITY).cumcount()).set_index([*IDENTITY, "copy"])


def _difference_stderr(tuned: Score, base: Score, ratio: float, pairs: tuple[np.ndarray, np.ndarray] | None) -> float:
    """Standard error of mean(tuned) - ratio * mean(base), the ratio taken as known."""
    if pairs is None:
        return math.hypot(tuned.stderr, ratio * base.stderr)
    tuned_outcomes, base_outcomes = pairs
    return float(np.std(tuned_outcomes - ratio * base_outcomes, ddof=1) / math.sqrt(len(tuned_outcomes)))


def _estimate(value: float, stderr: float, paired: bool = False) -> Estimate | None:
    if not math.isfinite(value):
        return None
    return Estimate(value + 0.0, stderr if math.isfinite(stderr) else None, paired)  # + 0.0: no negative zero
