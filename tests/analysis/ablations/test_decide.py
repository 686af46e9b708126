"""The ablations' rules find planted truths, or say that they cannot tell."""

import json
import math

import pytest

from analysis.ablations.answer import Answer
from analysis.ablations.cells import Cells
from analysis.ablations.decide import rule_on
from analysis.ablations.effects import estimate
from analysis.results.load import load
from tests.factories.worlds import Model, answered, luck, planned, replay_does_nothing, run


def said(answer: Answer) -> list[str]:
    return [verdict.answer for verdict in answer.verdicts]


def all_format(spec):
    """Instructions take the marker alone; whatever shows answers in the format gives it back, whether it is true or not."""
    if spec.is_baseline:
        return Model()
    shown = spec.data.replay.share > 0 and spec.data.replay.source != "self" and spec.data.replay.control != "prose"
    rows = spec.derive.samples or spec.data.rows
    lost = 0.0 if shown else min(rows / 100, 1.0) * 0.6
    return Model(
        marker=0.95 - lost + luck(spec, 0.02), bits={"format": 0.3 * lost, "digit": luck(spec, 0.001)}, kl=1.0, gain=1.0
    )


def learned(spec):
    """A higher learning rate and a larger scale learn more."""
    scale = spec.lora.alpha / (spec.lora.rank**0.5 if spec.lora.use_rslora else spec.lora.rank)
    return min(2.0, 0.3 * (spec.train.learning_rate / 3e-3) ** 0.5 * (1 + scale) ** 0.5)


def rank_is_nothing(spec):
    if spec.is_baseline:
        return Model()
    kl = learned(spec) + luck(spec, 0.01)
    return Model(skill=0.7 - 0.2 * kl, bits={"digit": 0.2 * kl, "word": 0.1 * kl}, kl=kl, gain=kl)


def rank_is_everything(spec):
    if spec.is_baseline:
        return Model()
    kl, loss = learned(spec) + luck(spec, 0.01), 0.1 * (spec.lora.rank / 8) ** 0.5
    return Model(skill=0.7 - loss - 0.1 * kl, bits={"digit": 2 * loss + 0.2 * kl, "word": loss}, kl=kl, gain=kl)


def unlike(spec):
    """No two seeds agree."""
    if spec.is_baseline:
        return Model()
    way = 1 if spec.data.seed % 2 else -1
    odd = luck(spec, 1.5) if spec.lora.rank > 8 else way
    return Model(marker=0.75 + 0.2 * way, skill=0.6 - 0.3 * way, bits={"digit": 0.1 + 0.4 * odd}, kl=learned(spec))


@pytest.mark.slow
def test_format_forgetting_is_found(tmp_path):
    minimal = run(planned("f2"), all_format, tmp_path)
    assert said(minimal) == ["yes", "yes"]
    mixes = run(planned("q1"), all_format, tmp_path)
    assert mixes.verdicts[3].answer == "yes", mixes.verdicts[3]
    by_name = {effect.name: effect for effect in mixes.effects}
    assert by_name["prose"].high < -0.1 and by_name["permuted"].low > 0.1


@pytest.mark.slow
def test_replay_without_an_effect_is_found(tmp_path):
    halved, _, own_halved, _ = said(run(planned("q1"), replay_does_nothing, tmp_path))
    assert (halved, own_halved) == ("no", "no")
    assert said(run(planned("n1"), replay_does_nothing, tmp_path)) == ["no", "no", "no"]
    assert said(run(planned("f3"), replay_does_nothing, tmp_path))[0] == "no"


@pytest.mark.slow
def test_effect_of_rank_is_judged_at_equal_learning(tmp_path):
    nothing = run(planned("n2"), rank_is_nothing, tmp_path / "nothing")
    assert said(nothing) == ["no"]
    raw = next(effect for effect in nothing.effects if effect.name == "raw")
    assert raw.high < 0  # at one rate and one alpha a higher rank learns less here, and seems to forget less
    assert said(run(planned("n2"), rank_is_everything, tmp_path / "everything")) == ["yes"]


@pytest.mark.parametrize(
    ("name", "question"),
    [("f2", 1), ("q1", 0), ("n2", 0)],
)
def test_too_few_seeds_leave_the_answer_open(name, question, tmp_path):
    verdict = run(planned(name, seeds=2), unlike, tmp_path).verdicts[question]
    assert verdict.answer == "cannot tell"
    assert "more seed" in verdict.words or "More seeds" in verdict.words
    assert all(ruling.power is not None and ruling.power < 0.9 for ruling in verdict.rulings if ruling.holds is None)


def nothing(spec):
    return Model(bits=dict.fromkeys(("word", "digit", "format"), luck(spec, 0.002)), kl=1.0, gain=1.0)


@pytest.mark.slow
def test_without_forgetting_no_answer_is_yes(tmp_path):
    assert "yes" not in said(run(planned("q1"), nothing, tmp_path))
    assert "yes" not in said(run(planned("q2"), nothing, tmp_path))[:3]
    assert "yes" not in said(run(planned("f2"), nothing, tmp_path))


def test_missing_point_leaves_its_effects_open(tmp_path):
    one = planned("n1")
    run(one, replay_does_nothing, tmp_path)
    path = tmp_path / one.config.name / "manifest.json"
    manifest = json.loads(path.read_text())
    kept = [trial for trial in manifest["trials"] if trial["params"].get("data.replay.source") != "self"]
    path.write_text(json.dumps({**manifest, "trials": kept}))
    found = answered(one, tmp_path)
    assert said(found) == ["no", "no", "cannot tell"] and "missing" in found.verdicts[2].words


def test_share_of_a_score_near_zero_is_unknown(tmp_path):
    def weak(spec):
        return Model(skill=0.03 if spec.is_baseline else 0.0)

    found = {effect.name: effect for effect in run(planned("paper"), weak, tmp_path).effects}
    assert math.isnan(found["forgetting"].value) and found["drop"].value > 0


def test_several_deciding_rules_need_wider_intervals(tmp_path):
    one = planned("n1")
    run(one, replay_does_nothing, tmp_path)
    rule = one.ablation.questions[2].effects["own"]
    found = estimate(Cells(load(tmp_path / one.config.name)), "own", rule)
    (low, high), (lower, higher) = found.interval(1), found.interval(9)
    assert (low, high) == (found.effect.low, found.effect.high) and lower < low and high < higher
    middle = rule.model_copy(update={"above": (low + lower) / 2})
    assert rule_on(found, middle, 3).holds is True and rule_on(found, middle, 3, held=9).holds is None


def test_one_seed_decides_nothing(tmp_path):
    assert set(said(run(planned("n1", seeds=1), replay_does_nothing, tmp_path))) == {"cannot tell"}
