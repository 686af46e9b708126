"""Stages hold whole clusters of the half that is judged; together they are all documents, each once."""

import pandas as pd
import pytest

from trials.evaluation.racing import Document, Pause, Race, judged, so_far, stages, together, until, without

DOCUMENTS = [Document("task", i, f"hash{i}", ("search", "report")[i // 2 % 2], f"cluster{i // 2}") for i in range(200)]


@pytest.mark.parametrize("judged", ["search", "all"])
def test_stages_split_the_documents(judged):
    found = stages(DOCUMENTS, judged, (0.25, 0.5))
    assert sorted(number for stage in found for number in stage.get("task", [])) == list(range(200))
    assert all(stage["task"] == sorted(stage["task"]) for stage in found)
    early = [DOCUMENTS[number] for stage in found[:-1] for number in stage["task"]]
    assert early
    assert {one.half for one in early} == ({"search"} if judged == "search" else {"search", "report"})


def test_stage_takes_whole_clusters():
    for stage in stages(DOCUMENTS, "all", (0.25, 0.5)):
        numbers = set(stage["task"])
        assert {number ^ 1 for number in numbers} == numbers


def test_answered_documents_are_left_out_and_joined_in_order():
    parts = [pd.DataFrame({"task": ["b", "a"], "doc_id": [1, 3]}), pd.DataFrame({"task": ["a"], "doc_id": [2]})]
    assert without({"a": [1, 2, 3], "b": [1]}, parts) == {"a": [1]}
    assert together(parts).values.tolist() == [["a", 2], ["a", 3], ["b", 1]]


def test_document_that_two_parts_hold_counts_once():
    """Attempts under other stages leave parts that overlap."""
    parts = [
        pd.DataFrame({"task": "a", "doc_id": numbers, "score": score}) for numbers, score in (([1, 2], 1.0), ([2, 3], 0.0))
    ]
    assert together(parts)["score"].tolist() == [1.0, 1.0, 0.0]
    documents = [Document("a", n, f"h{n}", "search", f"c{n}") for n in (1, 2, 3)]
    hashed = [part.assign(role="r", doc_hash=[f"h{n}" for n in part["doc_id"]]) for part in parts]
    assert so_far("r", documents, hashed).column("score").tolist() == [1.0, 1.0, 0.0]


@pytest.mark.parametrize(
    ("half", "fewest", "expected"),
    [("all", 1, [0, 1, 2]), ("all", 13, [1, 2]), ("search", 13, [2]), ("search", 26, []), ("all", 51, [])],
)
def test_stage_with_too_few_clusters_of_a_role_judges_nobody(half, fewest, expected):
    documents = {
        "large": [*DOCUMENTS, *(Document("more", i, f"m{i}", "search", f"m{i}") for i in range(99))],
        "small": DOCUMENTS,
    }
    assert judged(documents, Race(list(documents), half, lambda record, share: None, fewest=fewest)) == expected


def test_trial_pauses_at_a_stage_however_few_its_clusters():
    race = Race(["task"], "search", lambda record, share: None, Pause(1.0, 0.25, lambda *_: None), fewest=999)
    assert judged({"task": DOCUMENTS}, race) == [1, 2, 3]


def test_stages_until_one_are_sorted_and_whole():
    found = stages(DOCUMENTS, "all")
    assert until(found, 0) == found[0]
    assert until(found, len(found) - 1) == {"task": list(range(200))}
