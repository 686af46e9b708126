"""Forgetting taken apart in a sweep: what can be asked for, and the halves are kept apart."""

import pytest

from analysis.metrics.definitions import PART_KINDS
from analysis.metrics.names import LEARNING_KINDS, split_metric
from analysis.results.load import load
from tests.factories.sweeps import Builder
from trials.ledger.record import Score


def test_every_part_is_a_metric_that_can_be_asked_for():
    for kind in PART_KINDS:
        assert split_metric(f"math.{kind}") == ("math", kind)
    for kind in LEARNING_KINDS:
        assert split_metric(f"learning.{kind}") == ("learning", kind)


def halves(search, report):
    return {
        role: {
            "search": {"score": Score(value=search, stderr=0.1, n=5)},
            "report": {"score": Score(value=report, stderr=0.1, n=5)},
        }
        for role in ("commonsense", "math")
    }


def test_the_search_sees_one_half_and_the_other_is_quoted(tmp_path):
    builder = Builder(tmp_path)
    builder.record(builder.base, (20, 40), halves=halves(0.4, 0.8))
    builder.add((30, 39), halves=halves(0.6, 0.3)).add((25, 39), halves=halves(0.5, 0.9))
    sweep = builder.load(documents="half")
    assert sweep.half == "report"
    assert list(sweep.trials["commonsense.gain"]) == pytest.approx([-0.5, 0.1])
    assert list(sweep.trials["commonsense.gain_search"]) == pytest.approx([0.2, 0.1])
    assert list(sweep.front["number"]) == [0], "the first dominates on the half that the search saw"
    whole = builder.load(documents="all")
    assert whole.half is None
    assert list(whole.trials["commonsense.gain"]) == pytest.approx([0.2, 0.1])


def test_a_folder_is_loaded_with_what_only_some_trials_have_measured(tmp_path):
    builder = Builder(tmp_path).baseline().add((30, 30))
    details = {"math": {"bpb": Score(value=0.5, stderr=0.1, n=50)}}
    builder.add((30, 30), details=details)
    sweep = load(builder.load().folder)
    assert sweep.trials["math.gold_bpb"].isna().tolist() == [True, False]


def test_errors_are_called_paired_whatever_was_learnt(tmp_path):
    builder = Builder(tmp_path).baseline()
    learnt = {"a": {"tokens": 9.0, "loss": 1.0, "base_loss": 2.0, "kl": 0.1, "reverse_kl": 0.1}}
    sweep = builder.add((30, 30), learning=learnt).load()
    assert sweep.trials["learning.gain"].tolist() == [1.0]
    assert sweep.trials["paired"].all()
