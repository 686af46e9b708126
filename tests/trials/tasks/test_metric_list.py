"""A mistake in metric_list is found before anything of the folder runs."""

import pytest

from tests.factories.own_tasks import SHOP, shop
from trials.errors import InputError
from trials.spec import Evaluation
from trials.tasks.folder import opened
from trials.tasks.metric_list import check, missing, names, unknown


def leaf(folder, entry: str):
    file = folder / "sums.yaml"
    file.write_text(f"task: t\ndataset_path: json\nmetric_list: {entry}\n")
    opened_folder = opened(str(folder))
    (found,) = opened_folder.leaves("t")
    return opened_folder, found


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ("[{metric: acc, aggregation: avg}]", "metric acc: lm-eval has no aggregation 'avg'; did you mean mean? it has bypass"),
        ("[{metric: acc, aggregation: perplexty}]", "did you mean perplexity?"),
        ("[{metric: acc, aggregation: [mean]}]", "has no aggregation ['mean']"),
        ("[{metric: acc, aggregation: }]", "the metric acc has no aggregation; write aggregation: mean"),
        ("[{metric: !function metrics.near}]", "the metric near has no aggregation; write aggregation: mean"),
        ("[{metric: acc, higher_is_beter: true}]", "no key 'higher_is_beter' of a metric; did you mean 'higher_is_better'?"),
        ("[{metrc: acc}]", "no key 'metrc' of a metric; did you mean 'metric'?"),
        ("[{aggregation: mean}]", "an entry of metric_list has no key 'metric'; it has 'aggregation'"),
        ("acc", "metric_list is a list of entries such as {metric: acc, aggregation: mean}, but got 'acc'"),
    ],
)
def test_mistake_is_one_line_with_its_place(tmp_path, entry, expected):
    with pytest.raises(InputError) as caught:
        check(*leaf(shop(tmp_path), entry))
    assert f"sums.yaml:3: task t: {'lm-eval knows ' * expected.startswith('no key')}" in str(caught.value)
    assert expected in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_sound_lists_pass(tmp_path):
    folder = shop(tmp_path)
    for entry in ("[{metric: acc}]", "[{metric: acc, aggregation: mean, aggregate: 3}]", "null"):
        check(*leaf(folder, entry))


def test_metric_that_the_task_lacks_is_named_with_the_nearest():
    (found,) = opened(str(SHOP)).leaves("shop_distance")
    assert names(found) == ["distance", "close"]
    assert unknown(found, "distance") is None
    assert (
        unknown(found, "distanse")
        == "task shop_distance has no metric 'distanse'; did you mean 'distance'? it measures distance, close"
    )


def test_names_that_only_code_knows_are_left_to_it(tmp_path):
    folder = shop(tmp_path)
    (folder / "metrics.py").write_text("def other(references, predictions):\n    return 1\nnear = other\n")
    _, found = leaf(folder, "[{metric: !function metrics.near, aggregation: mean}]")
    assert names(found) is None
    assert unknown(found, "other") is None
    (folder / "metrics.py").write_text("def near(:\n")
    assert names(found) is None


def test_role_without_task_or_metric_is_shown_what_there_is():
    known = "shop_choices, shop_distance, shop_notes, shop_sums, shop_tools, shop_visits, shop_words"
    assert missing({"include": str(SHOP), "metric": "acc"}) == f"missing key 'task'; {SHOP} has {known}"
    given = {"include": str(SHOP), "task": "shop_distance"}
    assert missing(given) == "missing key 'metric'; shop_distance measures distance, close"
    assert missing({**given, "metric": "close"}) is missing({"task": "a"}) is missing({**given, "task": "no"}) is None
    with pytest.raises(ValueError, match="missing key 'metric'; shop_distance measures distance, close"):
        Evaluation.model_validate({**given, "trust_code": True})
