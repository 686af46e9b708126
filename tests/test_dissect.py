"""Forgetting taken apart: the parts are the whole, their errors are right, and the halves are kept apart."""

import math

import numpy as np
import pandas as pd
import pytest

from analysis.dissect import delta_stderr, forgetting_parts, learning, role_parts
from analysis.load import load
from analysis.measure import measure
from analysis.metrics import LEARNING_KINDS, PART_KINDS, split_metric
from tests.test_analysis_sweep import Builder
from trials.record import Score, TrialRecord


def share(values):
    values = np.asarray(values, dtype=float)
    return Score(value=values.mean(), stderr=values.std(ddof=1) / math.sqrt(len(values)), n=len(values))


def ratio(bits, length):
    return Score(value=float(np.sum(bits) / np.sum(length)), stderr=0.01, n=len(bits))


def frame(**columns):
    n = len(next(iter(columns.values())))
    return pd.DataFrame({"role": "math", "task": "gsm", "doc_hash": [f"h{i}" for i in range(n)], **columns})


def answers(random, n, with_marker, right_given_marker):
    marker = random.random(n) < with_marker
    return {"marker": marker * 1.0, "strict": (marker & (random.random(n) < right_given_marker)) * 1.0}


@pytest.mark.parametrize(("tuned", "base"), [((0.4, 0.5), (0.9, 0.6)), ((1.0, 0.1), (0.8, 0.9)), ((0.3, 0.9), (0.3, 0.5))])
def test_format_and_skill_add_up_to_the_forgetting_rate(tuned, base):
    random = np.random.default_rng(0)
    sides = [answers(random, 500, *one) for one in (tuned, base)]
    scores = [{name: share(values) for name, values in side.items()} for side in sides]
    found = role_parts("math", *scores, *(frame(**side) for side in sides))
    both = found["format_forgetting"].value + found["skill_forgetting"].value
    tuned_right, base_right = (side["strict"].mean() for side in sides)
    assert both == pytest.approx((base_right - tuned_right) / base_right)
    assert found["marker_drop"].value == pytest.approx(sides[1]["marker"].mean() - sides[0]["marker"].mean())


def test_an_answer_that_never_carries_the_marker_lost_its_format_alone():
    assert forgetting_parts({"strict": 0.0, "marker": 0.0}, {"strict": 0.5, "marker": 1.0}) == (1.0, 0.0)
    assert forgetting_parts({"strict": 0.2, "marker": 1.0}, {"strict": 0.4, "marker": 1.0}) == pytest.approx((0.0, 0.5))
    assert forgetting_parts({"strict": 0.1, "marker": 0.5}, {"strict": 0.0, "marker": 1.0}) is None, "undefined at base 0"


def test_the_standard_error_of_a_part_is_its_spread_over_fresh_documents():
    estimates = []
    for seed in range(150):
        random = np.random.default_rng(seed)
        length = random.integers(50, 200, 300).astype(float)
        base_bits = length * random.normal(0.6, 0.1, 300)
        more = {
            0: {"bits": base_bits + length * random.normal(0.05, 0.02, 300), "bytes": length},
            1: {"bits": base_bits, "bytes": length},
        }
        sides = [answers(random, 300, *one) | more[i] for i, one in enumerate([(0.5, 0.5), (0.9, 0.6)])]
        scores = [
            {name: share(side[name]) for name in ("marker", "strict")} | {"bpb": ratio(side["bits"], side["bytes"])}
            for side in sides
        ]
        estimates.append(role_parts("math", *scores, *(frame(**side) for side in sides)))
    for kind in ("format_forgetting", "skill_forgetting", "marker_drop", "gold_bpb_delta"):
        assert all(one[kind].paired for one in estimates)
        spread = np.std([one[kind].value for one in estimates])
        assert np.mean([one[kind].stderr for one in estimates]) == pytest.approx(spread, rel=0.12), kind


def test_the_delta_method_of_a_plain_mean_is_the_standard_error_of_the_mean():
    tuned, base = np.random.default_rng(1).random((2, 50))
    found = delta_stderr(lambda t, b: t["x"] - b["x"], {"x": tuned}, {"x": base})
    assert found == pytest.approx(np.std(tuned - base, ddof=1) / math.sqrt(50))


def test_documents_that_do_not_pair_leave_the_value_without_an_error():
    scores = {"marker": share([1, 0, 1, 1]), "strict": share([1, 0, 0, 1])}
    other = frame(marker=[1.0, 1.0, 0.0, 1.0], strict=[1.0, 0.0, 0.0, 1.0]).assign(doc_hash=list("abcd"))
    found = role_parts("math", scores, scores, frame(marker=[1, 0, 1, 1.0], strict=[1, 0, 0, 1.0]), other)
    assert found["marker_drop"].value == 0
    assert found["marker_drop"].stderr is None


def test_what_was_learnt_is_the_mean_over_all_tokens(spec):
    parts = {
        "a": {"tokens": 30, "loss": 1.0, "base_loss": 2.0, "kl": 0.1, "reverse_kl": 0.2},
        "b": {"tokens": 10, "loss": 3.0, "base_loss": 2.0, "kl": 0.5, "reverse_kl": 0.6},
    }
    found = learning(TrialRecord(key=spec.key, state="complete", spec=spec, learning=parts))
    values = {name: estimate.value for name, estimate in found.items()}
    assert values == pytest.approx({"learning.loss": 1.5, "learning.gain": 0.5, "learning.kl": 0.2, "learning.reverse_kl": 0.3})


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


def test_a_record_without_halves_counts_whole_whatever_half_is_asked_for(spec):
    scores = {"math": Score(value=0.4, stderr=0.1, n=10)}
    record = TrialRecord(key=spec.key, state="complete", spec=spec, scores=scores)
    assert measure([record], record, half="report")["math.value"].value == 0.4


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


def test_a_role_without_a_document_in_the_half_is_undefined_and_no_other_role_falls_back(spec):
    scores = {name: Score(value=0.4, stderr=0.1, n=10) for name in ("math", "commonsense")}
    kept = halves(0.2, 0.6)
    del kept["math"]["report"]
    record = TrialRecord(key=spec.key, state="complete", spec=spec, scores=scores, halves=kept)
    found = measure([record], record, half="report")
    assert "math.value" not in found
    assert found["commonsense.value"].value == 0.6
