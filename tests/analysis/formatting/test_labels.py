"""Names and values of metrics, settings and constraints."""

import math

from analysis.formatting import labels
from analysis.formatting.labels import setting_names
from analysis.metrics.names import parse_constraint
from trials.ledger.outcomes import Scale
from trials.ledger.record import Score, TrialRecord


def test_setting_names_are_short_and_unique():
    names = setting_names(["lora.rank", "train.learning_rate", "train.seed", "data.seed", "eval.math.seed", "seed"])
    assert list(names.values()) == ["rank", "lr", "train.seed", "data.seed", "math.seed", "seed"]
    assert len(set(setting_names(["a.b", "c.a.b", "d.c.a.b"]).values())) == 3


def test_differences_have_a_sign_and_zero_has_none():
    assert labels.percent("math.gain", 0.12, 0.021) == "+12.0 ± 2.1"
    assert labels.percent("math.drop", -0.12) == "−12.0"
    assert labels.percent("math.gain", -0.0001) == "0.0"
    assert labels.percent("math.value", 0.5) == "50.0"
    assert labels.percent("math.value", math.nan) == "–"


def test_constraint_has_its_bound_in_the_metric_s_unit():
    constraint = parse_constraint("math.forgetting <= 0.1")
    assert labels.constraint_sign(constraint) == "math forgetting ≤ 10 %"
    assert labels.constraint_words(constraint) == "math forgetting within 10 %"


def test_settings_are_short():
    shown = [labels.setting(value) for value in (2e-4, 0.5, 1e4, True, None, ["q_proj", "k_proj"], "x")]
    assert shown == ["2e-4", "0.5", "10000", "yes", "–", "q,k", "x"]


def test_scores_that_are_no_shares_have_no_unit(spec, monkeypatch):
    monkeypatch.setattr(labels, "_NO_SHARES", set())
    scales = {"notes": Scale(form="exp", higher_is_better=False, share=False), "near": Scale(higher_is_better=False)}
    labels.learn_scales([TrialRecord(key=spec.key, state="complete", spec=spec, scales=scales)])
    assert labels.column("notes.gain") == "notes gain"
    assert labels.percent("notes.gain", 2.5) == "+2.500"
    assert labels.column("near.gain") == "near gain (points)"
    assert labels.percent("notes.forgetting", 0.25) + labels.unit("notes.forgetting") == "+25.0 %"


def test_sweep_that_was_read_last_decides_on_its_roles(spec, monkeypatch):
    monkeypatch.setattr(labels, "_NO_SHARES", set())
    score = Score(value=0.5, stderr=0.1, n=4)
    for scales, unit in [({}, " points"), ({"math": Scale(form="exp", share=False)}, ""), ({}, " points")]:
        record = TrialRecord(key=spec.key, state="complete", spec=spec, scales=scales, scores={"math": score})
        labels.learn_scales([record])
        assert labels.unit("math.gain") == unit


def test_role_has_no_unit_where_one_record_s_score_is_no_share(spec, monkeypatch):
    monkeypatch.setattr(labels, "_NO_SHARES", set())
    score = Score(value=0.5, stderr=0.1, n=4)
    for scales in [{"math": Scale(share=False)}, {}], [{}, {"math": Scale(share=False)}]:
        records = [TrialRecord(key=spec.key, state="complete", spec=spec, scales=one, scores={"math": score}) for one in scales]
        labels.learn_scales(records)
        assert labels.unit("math.gain") == ""
