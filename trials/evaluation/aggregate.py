"""Scores of a role from its documents: means, and ratios of sums for bits per byte, with standard errors."""

import math

import numpy as np
import pandas as pd

from trials.ledger.outcomes import SHARES_SCALE, Scale
from trials.ledger.record import Score

_MEANS = ("strict", "flexible", "marker", "stopped", "margin")


def score(values: pd.Series) -> Score:
    """Mean and standard error (sample deviation over sqrt(n), as lm-eval's mean_stderr)."""
    n = len(values)
    return Score(value=float(values.mean()), stderr=float(values.std(ddof=1) / n**0.5) if n > 1 else 0.0, n=n)


def ratio(tops: pd.Series, bottoms: pd.Series) -> Score:
    """sum(tops) / sum(bottoms) and its standard error by the delta method; bottoms are not all 0."""
    n, value = len(tops), float(tops.sum() / bottoms.sum())
    deviation = float(np.std(tops - value * bottoms, ddof=1)) if n > 1 else 0.0
    return Score(value=value, stderr=deviation / (float(bottoms.mean()) * n**0.5), n=n)


def of_role(documents: pd.DataFrame, scale: Scale) -> Score:
    """The role's own score; the standard error of an exponential by the delta method."""
    if scale.form == "mean":
        return score(documents["score"])
    natural = ratio(documents["score"], documents["weight"])
    if scale.form == "ratio":
        return natural
    value = math.exp(natural.value)
    return Score(value=value, stderr=value * natural.stderr, n=natural.n)


def observed(documents: pd.DataFrame, scale: Scale) -> Scale:
    """The scale, no longer one of shares where a document's score is outside 0..1."""
    return scale if documents["score"].between(0, 1).all() else scale.model_copy(update={"share": False})


def scores(documents: pd.DataFrame, scale: Scale = SHARES_SCALE) -> tuple[Score, dict[str, Score]]:
    """A role's score, and its other scores by name (see TrialRecord.details)."""
    names = [name for name in documents.columns if "," in name or name in _MEANS]
    details = {name: score(documents[name].dropna()) for name in names if documents[name].notna().any()}
    for name in documents.columns:
        if name == "bits" or name.startswith("bits."):
            part = documents[[name, name.replace("bits", "bytes")]].dropna()
            if part.iloc[:, 1].sum() > 0:
                details[name.replace("bits", "bpb")] = ratio(part.iloc[:, 0], part.iloc[:, 1])
    return of_role(documents, scale), details


def halves(documents: pd.DataFrame, scale: Scale = SHARES_SCALE) -> dict[str, dict[str, Score]]:
    """`scores` of each half, with the role's own under "score". A half without a document is left out."""
    found = {}
    for half, part in documents.groupby("half"):
        own, details = scores(part, scale)
        found[str(half)] = {"score": own, **details}
    return found
