"""Forgetting taken apart in a sweep: what can be asked for, and the halves are kept apart."""

import math

import numpy as np
import pytest

from analysis.metrics.definitions import PART_KINDS
from analysis.metrics.names import LEARNING_KINDS, split_metric
from analysis.results.load import load
from tests.factories.sweeps import Builder
from trials.evaluation import decomposition, evaluate
from trials.evaluation.engine.fast_engine import FastEngine
from trials.evaluation.engine.lm_eval_adapter import LmEvalAdapter
from trials.ledger.record import Score
from trials.spec import Evaluation


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


GOLD = " Tom's 48/2 = <<48/2=24>>24 clips, twenty-five x 3, 1,200 x 3 (or so).\n#### 1,224 end"


def test_classes_of_a_gold_solution():
    found = decomposition.classes(GOLD, "Tom sold 48 clips, and 2 more", "####")
    runs = {kind: "".join(c if k == kind else " " for c, k in zip(GOLD, found, strict=True)).split() for kind in set(found)}
    words = runs.pop("word")
    assert words == ["Tom's", "clips,", "twenty-five", "x", ",", "or", "so", ".", "end"]
    assert runs == {
        "digit_copied": ["48", "2"],
        "digit_computed": ["24", "3", "1,200", "3"],
        "operator": ["/", "=", "x", "(", ")"],
        "calculator": ["<<48/2=24>>"],
        "marker": ["####"],
        "final": ["1,224"],
    }
    assert set(runs) == {*decomposition.PARTS, "operator"}
    assert {"marker", "final"}.isdisjoint(decomposition.classes(GOLD, "", None)), "without a marker nothing is final"


def test_classes_sum_to_the_whole(documents):
    frame = documents["micro_gsm"]
    for unit in ("bits", "bytes"):
        assert np.allclose(sum(frame[f"{unit}.{name}"] for name in decomposition.CLASSES), frame[unit])
        for whole in ("digit", "format"):
            parts = [f"{unit}.{part}" for part, of in decomposition.PARTS.items() if of == whole]
            assert np.allclose(frame[parts].sum(axis=1), frame[f"{unit}.{whole}"])
    assert (frame["bytes"] == [len(f" {target}".encode()) for target in frame["target"]]).all()
    assert (frame["bytes.marker"] > 0).all()


def test_missing_marker_and_lax_answer_are_distinguished(micro, tasks, monkeypatch):
    answers = iter(["12 - 5 = 7\n#### 7", "it makes 7", "#### 9 and 7", "nothing"])
    monkeypatch.setattr(LmEvalAdapter, "generate_until", lambda self, asked, **_: [next(answers) for _ in asked])
    monkeypatch.setattr(LmEvalAdapter, "stopped", lambda self, prompt: False)
    tasks_of = tasks.build(Evaluation.model_validate({"preset": "micro_gsm", "documents": 4}))["micro_gsm"]
    monkeypatch.setattr(type(tasks_of), "doc_to_target", lambda self, doc, *_: "2 + 5 = 7\n#### 7")
    evaluation = Evaluation.model_validate({"preset": "micro_gsm", "documents": 4})
    frame = evaluate.evaluate(FastEngine(micro.model, micro.tokenizer, 4), "math", evaluation, tasks)
    assert frame[["marker", "strict", "flexible", "stopped"]].to_numpy().tolist() == [
        [1, 1, 1, 0],
        [0, 0, 1, 0],
        [1, 0, 1, 0],
        [0, 0, 0, 0],
    ]


def test_margin_is_positive_exactly_where_acc_norm_is_right(documents):
    frame = documents["micro_swag"]
    assert ((frame["margin"] > 0) == (frame["acc_norm,none"] == 1)).all()
    assert 0 < frame["acc_norm,none"].mean() < 1
    chosen = [float(row.response.split()[int(row.target)]) for row in frame.itertuples()]
    assert (-frame["bits"] * math.log(2)).tolist() == pytest.approx(chosen, abs=1e-4)
