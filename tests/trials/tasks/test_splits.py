"""Halves of a benchmark: documents that reveal each other's answers stay together."""

import pytest

from trials.tasks.splits import cluster, half


@pytest.mark.parametrize(
    ("doc", "label"),
    [
        ({"source_id": "activitynet~1", "ctx": "A man"}, "activitynet~1"),
        ({"activity_label": "Cooking", "ctx": "[header] How to bake bread [title] Knead"}, "[header] How to bake bread"),
        ({"activity_label": "Rowing", "ctx": "A man rows."}, "Rowing"),
        ({"source_id": "x", "question": "?"}, "HASH"),
    ],
)
def test_cluster_is_the_source_the_title_or_the_document(doc, label):
    assert cluster(doc, "HASH") == label


def test_half_depends_on_the_cluster_only():
    halves = {half({"source_id": "a", "ctx": str(number)}, f"hash{number}") for number in range(20)}
    assert len(halves) == 1


def test_halves_are_about_equal():
    found = [half({"question": "?"}, f"hash{number}") for number in range(2_000)]
    assert found.count("report") / len(found) == pytest.approx(0.5, abs=0.05)
