"""A metric's documents add up to lm-eval's own aggregate, or the metric is refused."""

import random
from types import SimpleNamespace

import pytest
from lm_eval.api.registry import get_aggregation

from trials.errors import InputError
from trials.ledger.outcomes import Scale
from trials.tasks.measures import check_aggregate, logged, measure, measured

DRAW = random.Random(0)
SHARES = [float(DRAW.random() < 0.4) for _ in range(50)]
NATS = [-DRAW.random() * 30 for _ in range(50)]
WEIGHTED = [(nats, DRAW.randint(1, 90)) for nats in NATS]
FORECASTS = [(DRAW.randrange(3), [0.2, 0.5, 0.3]) for _ in range(50)]


def task(aggregation, higher: bool | None = True):
    return SimpleNamespace(
        aggregation=lambda: {"m": get_aggregation(aggregation) if isinstance(aggregation, str) else aggregation},
        higher_is_better=lambda: {} if higher is None else {"m": higher},
        _filters=[SimpleNamespace(name="none")],
    )


@pytest.mark.parametrize(
    ("aggregation", "items", "form"),
    [
        ("mean", SHARES, "mean"),
        ("perplexity", NATS, "exp"),
        ("weighted_perplexity", WEIGHTED, "exp"),
        ("bits_per_byte", WEIGHTED, "ratio"),
        ("brier_score", FORECASTS, "mean"),
        (lambda items: sum(2 * item for item in items) / len(items), SHARES, "mean"),
    ],
)
def test_documents_add_up_to_the_aggregate_of_lm_eval(aggregation, items, form):
    own = task(aggregation, higher=False)
    found = measure(own, "m")
    assert found.scale == Scale(form=form, higher_is_better=False)
    rows = [found.of_document(item) for item in items]
    check_aggregate(found, rows, own.aggregation()["m"](items))


@pytest.mark.parametrize("aggregation", ["f1", "matthews_corrcoef", "bleu", "chrf", "ter", "median"])
def test_corpus_level_metric_is_refused(aggregation):
    with pytest.raises(InputError, match=f"m is a {aggregation} of all documents"):
        measure(task(aggregation), "m")


def test_unknown_direction_is_refused():
    with pytest.raises(InputError, match="write higher_is_better into its entry"):
        measure(task("mean", higher=None), "m")


def test_aggregation_that_is_no_mean_is_found_out():
    greatest = task(max)
    found = measure(greatest, "m")
    with pytest.raises(InputError, match=r"the aggregation of m gives 1, the mean of its values of single documents is 0.5"):
        check_aggregate(found, [(0.0, 1.0), (1.0, 1.0)], 1.0)


def test_aggregation_that_fails_on_one_document_is_one_line():
    found = measure(task(lambda items: items[1]), "m")
    with pytest.raises(InputError, match="the aggregation of m has no value of a single document: IndexError"):
        found.of_document(1.0)


def test_metrics_are_named_with_their_filters():
    assert measured(task("mean")) == ["m,none"]


@pytest.mark.parametrize(
    ("metric", "entry", "higher", "scale"),
    [
        ("exact_match", {}, None, Scale()),
        ("perplexity", {}, None, Scale(form="exp", higher_is_better=False)),
        ("m", {}, None, Scale()),
        ("m", {"aggregation": "bits_per_byte", "higher_is_better": False}, None, Scale(form="ratio", higher_is_better=False)),
        ("m", {"aggregation": "def own(items): ..."}, False, Scale(higher_is_better=False)),
        ("m", {"higher_is_better": True}, False, Scale(higher_is_better=False)),
    ],
)
def test_results_of_lm_eval_name_the_form_and_direction_of_a_metric(metric, entry, higher, scale):
    assert logged(metric, entry, higher).scale == scale
