"""How a metric of lm-eval is made of single documents: its direction, and numbers of a document that add up to it.

Gain and forgetting are paired over documents, so a metric needs a number for each. lm-eval's aggregations that have one:

    mean                 of the documents' values
    perplexity           exp(-mean of log-likelihoods)
    weighted_perplexity  exp(-sum of log-likelihoods / sum of words, or of bytes)
    bits_per_byte        -sum of log-likelihoods / sum of bytes / ln 2
    any other            if it is the mean of what it returns for single documents, which is checked on every evaluation

A corpus-level one (F1, MCC, BLEU, chrF, TER, a median) is refused.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from lm_eval.api import metrics as _registered  # noqa: F401  # fills the registry
from lm_eval.api.registry import AGGREGATION_REGISTRY, HIGHER_IS_BETTER_REGISTRY, METRIC_AGGREGATION_REGISTRY

from trials.errors import InputError
from trials.ledger.outcomes import Scale

_CORPUS = ("f1", "matthews_corrcoef", "bleu", "chrf", "chrf++", "ter", "median", "nanmean", "bypass")
_FORMS: dict[str, Literal["mean", "ratio", "exp"]] = {
    "perplexity": "exp",
    "weighted_perplexity": "exp",
    "bits_per_byte": "ratio",
}
_APART = 1e-6  # relative difference of two sums in another order


@dataclass(frozen=True)
class Measure:
    """A metric of a task."""

    metric: str
    scale: Scale
    of_document: Callable[[Any], tuple[float, float]]
    """From what lm-eval logs for a document: its columns `score` and `weight`."""
    registered: bool = True
    """Whether the aggregation is one of lm-eval's own."""

    def value(self, rows: Iterable[tuple[float, float]]) -> float:
        """The metric over these (score, weight)."""
        scores, weights = (sum(column) for column in zip(*rows, strict=True))
        natural = scores / weights if weights else math.nan
        return math.exp(natural) if self.scale.form == "exp" else natural


def measured(task: Any) -> list[str]:
    """The "metric,filter" names of a task, in lm-eval's order."""
    return [f"{metric},{ensemble.name}" for ensemble in task._filters for metric in task.aggregation()]


def measure(task: Any, metric: str) -> Measure:
    """Raises InputError, without the task's name, for a metric that single documents do not add up to."""
    aggregate, higher = task.aggregation()[metric], task.higher_is_better().get(metric)
    if higher is None:
        raise InputError(
            f"nothing says whether {metric} is better when higher; write higher_is_better into its entry of metric_list"
        )
    return _measure(metric, aggregate, bool(higher))


def logged(metric: str, entry: Mapping[str, Any], higher: bool | None) -> Measure:
    """The measure of a metric in lm-eval's results. Raises InputError as `measure` does.

    `entry`: the metric's in metric_list, maybe empty. `higher`: what higher_is_better says of it. lm-eval's own default stands
    in for what neither says. A function of the task is not in the results: it is taken for a mean.
    """
    named = entry.get("aggregation")
    aggregate = METRIC_AGGREGATION_REGISTRY.get(metric, None) if named is None else AGGREGATION_REGISTRY.get(str(named), None)
    given = (higher, entry.get("higher_is_better"), HIGHER_IS_BETTER_REGISTRY.get(metric, None))
    direction = next((bool(one) for one in given if one is not None), True)
    if aggregate is None:
        return Measure(metric, Scale(higher_is_better=direction), _plain, registered=False)
    return _measure(metric, aggregate, direction)


def _measure(metric: str, aggregate: Callable[[list[Any]], float], higher: bool) -> Measure:
    names = [name for name, known in AGGREGATION_REGISTRY.items() if known is aggregate]
    if corpus := [name for name in names if name in _CORPUS]:
        raise InputError(
            f"{metric} is a {corpus[0]} of all documents, and no document has a part of it; choose a metric that is a mean"
        )
    form = next((_FORMS[name] for name in names if name in _FORMS), "mean")
    scale = Scale(form=form, higher_is_better=higher)
    if "mean" in names:
        return Measure(metric, scale, _plain)
    if names and names[0] in _OF:
        return Measure(metric, scale, _OF[names[0]])
    return Measure(metric, scale, _alone(metric, aggregate), registered=bool(names))


def check_aggregate(found: Measure, rows: Iterable[tuple[float, float]], reported: float | None) -> None:
    """Raises InputError where lm-eval's own aggregate of the same documents is another number."""
    own = found.value(rows)
    if reported is not None and not math.isclose(own, reported, rel_tol=_APART, abs_tol=_APART):
        raise InputError(
            f"the aggregation of {found.metric} gives {reported:.6g}, the mean of its values of single documents is {own:.6g}; "
            "choose a metric that is a mean"
        )


def _plain(item: Any) -> tuple[float, float]:
    return float(item), 1.0


def _alone(metric: str, aggregate: Callable[[list[Any]], float]) -> Callable[[Any], tuple[float, float]]:
    def value(item: Any) -> tuple[float, float]:
        try:
            return float(aggregate([item])), 1.0
        except Exception as error:  # a user's function
            reason = f"{type(error).__name__}: {' '.join(str(error).split())[:120]}"
            raise InputError(f"the aggregation of {metric} has no value of a single document: {reason}") from error

    return value


_OF: dict[str, Callable[[Any], tuple[float, float]]] = {
    "perplexity": lambda nats: (-float(nats), 1.0),
    "weighted_perplexity": lambda pair: (-float(pair[0]), float(pair[1])),
    "bits_per_byte": lambda pair: (-float(pair[0]) / math.log(2), float(pair[1])),
}
