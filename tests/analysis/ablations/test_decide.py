"""The ablations: their designs are whole on every base, and their rules find what was planted, or say that they cannot tell."""

import json
import math

import numpy as np
import pytest

from analysis.ablations.answer import Answer
from analysis.ablations.decide import rule_on
from analysis.ablations.effects import Cells, reckon, unbeaten
from analysis.ablations.questions import chances
from analysis.results.load import load
from orchestrator.ablations.design import Ablations
from orchestrator.planning.plan import plan
from tests.factories.worlds import Model, answered, luck, planned, run
from trials.errors import InputError

NAMES = ("f1", "f2", "f3", "n1", "n2", "n3", "q1", "q2", "q3", "paper")
ABLATIONS = Ablations()


def said(answer: Answer) -> list[str]:
    return [verdict.answer for verdict in answer.verdicts]


# ---------------------------------------------------------------------- designs


def test_the_paper_and_its_nine_experiments_are_there():
    assert sorted(ABLATIONS.names) == sorted(NAMES)


@pytest.mark.parametrize("scale", ["full", "small"])
@pytest.mark.parametrize("base", [None, "micro", "smollm2"])
@pytest.mark.parametrize("name", NAMES)
def test_every_rule_has_cells_on_every_base_and_at_every_scale(name, base, scale):
    if not ABLATIONS.can(name, base):
        pytest.skip(f"{name} compares bases, and {base} is one")
    for one in ABLATIONS.plan(name, base, scale):
        assert one.config.size() and one.questions
        # a share of the base's score is undefined where that is 0, the trial counts as failed and nothing is derived from it
        assert not any(objective.metric.endswith("forgetting") for objective in one.config.search.objectives)


@pytest.mark.parametrize("name", NAMES)
def test_the_real_designs_are_planned_before_anything_is_downloaded(name, tmp_path):
    for one in ABLATIONS.plan(name):
        found = plan(one.config, tmp_path, "T4", shapes=ABLATIONS.frame.shapes)
        assert found.gpu_hours is not None and found.memory is not None
        assert found.memory.fits, one.config.name


@pytest.mark.parametrize("name", NAMES)
def test_the_miniature_twin_has_the_design_of_the_real_one(name):
    real, twin = ABLATIONS.plan(name)[0].config, ABLATIONS.plan(name, "micro")[0].config
    assert real.search.replicates == twin.search.replicates
    if name != "n3":  # fewer pretraining seeds
        assert real.size() == twin.size() and len(real.derive.points()) == len(twin.derive.points())


def test_a_twin_says_what_its_sizes_are_beside_those_of_the_design():
    (note,) = ABLATIONS.plan("q1", "micro")[0].notes
    assert "data.samples times 0.128" in note and "train.learning_rate times 30" in note
    assert not ABLATIONS.plan("q1", "instruct")[0].notes
    assert "small scale" in ABLATIONS.plan("q1", "smollm2", "small")[0].notes[1]


def test_settings_of_two_ablations_that_are_the_same_have_one_key():
    configs = {name: planned(name).config for name in ("n1", "n2", "q1")}
    keys = {name: {spec.key for p in one.grid() for spec in one.specs(p)} for name, one in configs.items()}
    assert len(keys["n1"] & keys["q1"]) == 15 and len(keys["n2"] & keys["q1"]) == 3


def test_an_unknown_name_or_base_is_answered_with_what_there_is():
    with pytest.raises(InputError, match="there are f1, f2"):
        ABLATIONS.plan("q9")
    with pytest.raises(InputError, match="none of micro, smollm2, instruct"):
        ABLATIONS.plan("q1", "big")
    with pytest.raises(InputError, match="n3 compares bases"):
        ABLATIONS.plan("n3", "instruct")


# ---------------------------------------------------------------------- planted truths


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


def replay_does_nothing(spec):
    if spec.is_baseline:
        return Model()
    return Model(
        skill=0.2 + luck(spec, 0.001), bits=dict.fromkeys(("word", "digit"), 0.2 + luck(spec, 0.005)), kl=1.0, gain=1.0
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


def test_forgetting_that_is_all_format_is_found_to_be_format(tmp_path):
    minimal = run(planned("f2"), all_format, tmp_path)
    assert said(minimal) == ["yes", "yes"]
    mixes = run(planned("q1"), all_format, tmp_path)
    assert mixes.verdicts[2].answer == "yes", mixes.verdicts[2]
    by_name = {effect.name: effect for effect in mixes.effects}
    assert by_name["prose"].high < -0.1 and by_name["permuted"].low > 0.1


def test_replay_that_does_nothing_is_said_to_do_nothing(tmp_path):
    assert said(run(planned("q1"), replay_does_nothing, tmp_path))[:2] == ["no", "no"]
    assert said(run(planned("n1"), replay_does_nothing, tmp_path)) == ["no", "no"]
    assert said(run(planned("f3"), replay_does_nothing, tmp_path))[0] == "no"


def test_rank_without_an_effect_at_equal_learning_is_told_from_rank_with_one(tmp_path):
    nothing = run(planned("n2"), rank_is_nothing, tmp_path / "nothing")
    assert said(nothing) == ["no"]
    raw = next(effect for effect in nothing.effects if effect.name == "raw")
    assert raw.high < 0  # at one rate and one alpha a higher rank learns less here, and seems to forget less
    assert said(run(planned("n2"), rank_is_everything, tmp_path / "everything")) == ["yes"]


@pytest.mark.parametrize(
    ("name", "question"),
    [("f2", 1), ("q1", 0), ("n2", 0)],
)
def test_with_too_few_seeds_an_answer_says_that_it_cannot_tell_and_what_it_needs(name, question, tmp_path):
    verdict = run(planned(name, seeds=2), unlike, tmp_path).verdicts[question]
    assert verdict.answer == "cannot tell"
    assert "more seed" in verdict.words or "More seeds" in verdict.words
    assert all(ruling.power is not None and ruling.power < 0.9 for ruling in verdict.rulings if ruling.holds is None)


def nothing(spec):
    return Model(bits=dict.fromkeys(("word", "digit", "format"), luck(spec, 0.002)), kl=1.0, gain=1.0)


def test_where_nothing_is_forgotten_nothing_is_said_to_halve_it_or_to_carry_it(tmp_path):
    assert "yes" not in said(run(planned("q1"), nothing, tmp_path))
    assert "yes" not in said(run(planned("q2"), nothing, tmp_path))[:3]
    assert "yes" not in said(run(planned("f2"), nothing, tmp_path))


def test_a_point_of_the_design_that_is_missing_leaves_open_what_is_made_of_it(tmp_path):
    one = planned("n1")
    run(one, replay_does_nothing, tmp_path)
    path = tmp_path / one.config.name / "manifest.json"
    manifest = json.loads(path.read_text())
    kept = [trial for trial in manifest["trials"] if trial["params"].get("data.replay.source") != "self"]
    path.write_text(json.dumps({**manifest, "trials": kept}))
    found = answered(one, tmp_path)
    assert said(found) == ["no", "cannot tell"] and "missing" in found.verdicts[1].words


def test_a_share_of_a_score_near_0_is_not_told(tmp_path):
    def weak(spec):
        return Model(skill=0.03 if spec.is_baseline else 0.0)

    found = {effect.name: effect for effect in run(planned("paper"), weak, tmp_path).effects}
    assert math.isnan(found["forgetting"].value) and found["drop"].value > 0


def test_of_several_rules_that_could_each_decide_each_is_held_against_a_wider_interval(tmp_path):
    assert chances({"any": ["a", {"all": ["b", "c"]}]}) == {"a": (2, 1), "b": (2, 2), "c": (2, 2)}
    assert chances({"not": {"all": ["a", "b"]}}) == {"a": (1, 2), "b": (1, 2)}
    one = planned("n1")
    run(one, replay_does_nothing, tmp_path)
    rule = one.questions[1].effects["own"]
    reckoned = reckon(Cells(load(tmp_path / one.config.name)), "own", rule)
    (low, high), (lower, higher) = reckoned.interval(1), reckoned.interval(9)
    assert (low, high) == (reckoned.effect.low, reckoned.effect.high) and lower < low and high < higher
    middle = rule.model_copy(update={"above": (low + lower) / 2})
    assert rule_on(reckoned, middle, 3).holds is True and rule_on(reckoned, middle, 3, held=9).holds is None


def test_a_curve_leaves_out_the_points_that_another_beats():
    learned = np.array([[1.0, 1.2], [2.0, 2.0], [3.0, 2.8], [0.5, 0.5]])
    lost = np.array([[0.3, 0.3], [0.2, 0.2], [0.4, 0.4], [0.1, 0.1]])  # the first forgets more than the second, and learns less
    assert unbeaten(np.array([0, 1, 2]), learned, lost).tolist() == [1, 2]
    assert unbeaten(np.array([3, 1, 2]), learned, lost).tolist() == [3, 1, 2]


def test_more_seeds_are_no_more_documents(tmp_path):
    floors = []
    for seeds in (2, 5):
        one = planned("n1", seeds=seeds)
        run(one, replay_does_nothing, tmp_path / str(seeds))
        cells = Cells(load(tmp_path / str(seeds) / one.config.name))
        floors.append(reckon(cells, "own", one.questions[1].effects["own"]).floor)
    assert floors[0] == floors[1] > 0


def test_one_seed_decides_nothing(tmp_path):
    assert set(said(run(planned("n1", seeds=1), replay_does_nothing, tmp_path))) == {"cannot tell"}
