"""What mattered, on sweeps whose truth is planted."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

from analysis.explore.importance import bases, dependences, importance, interaction, matched, needed, smooth, varied
from tests.factories.planted_sweeps import planted, two_bases
from tests.factories.sweeps import NAMED, OBJECTIVES, SITUATIONS, Builder


@pytest.fixture
def sweep(tmp_path):
    return Builder(tmp_path).baseline().add((26, 37)).load()


@pytest.mark.parametrize("evaluator", ["fanova", "ped_anova"])
def test_planted_effects_have_the_importance(sweep, evaluator):
    table = importance(planted(sweep), evaluator)
    assert list(table) == ["commonsense.gain", "math.forgetting"]
    assert table["commonsense.gain"].idxmax() == "train.learning_rate"
    assert table.loc["train.learning_rate", "commonsense.gain"] > 0.6
    assert table.loc["train.schedule"].max() < 0.2
    assert (table.loc["train.decay"] == 0).all()
    assert table.sum().tolist() == pytest.approx([1, 1])


def test_too_few_trials_give_nothing(sweep):
    few = planted(sweep, n=11)
    assert varied(few) == ["lora.rank", "train.learning_rate", "train.schedule"]
    assert needed(few) == 12
    assert importance(few).isna().all().all()
    assert dependences(few, "math.forgetting", ["lora.rank"])["lora.rank"].empty
    assert interaction(few, "math.forgetting", "lora.rank", "train.learning_rate").empty
    enough = planted(sweep, n=12)
    assert importance(enough).notna().all().all()


def test_constant_metric_has_no_importance_and_failed_trials_do_not_count(sweep):
    found = planted(sweep, n=40)
    found.trials["commonsense.gain"] = 0.0
    found.trials.loc[:19, "state"] = "failed"
    found.trials.loc[:19, "math.forgetting"] = np.nan
    table = importance(found)
    assert table["commonsense.gain"].isna().all()
    assert table["math.forgetting"].notna().all()


def test_missing_values_and_lists_count_as_settings(sweep):
    n = 60
    found = planted(sweep, n)
    found.trials["train.kl"] = [None if place % 2 else 0.1 * place for place in range(n)]
    found.trials["lora.target_modules"] = pd.Series([["q_proj"], ["q_proj", "v_proj"]] * (n // 2), dtype=object)
    found.trials["train.flag"] = [bool(place % 3) for place in range(n)]
    found = dataclasses.replace(found, space=(*found.space, "train.kl", "lora.target_modules", "train.flag"))
    assert importance(found).notna().all().all()
    line = dependences(found, "math.forgetting", ["lora.target_modules"])["lora.target_modules"]
    assert line["value"].tolist() == ['["q_proj", "v_proj"]', '["q_proj"]']
    assert len(dependences(found, "math.forgetting", ["train.kl"])["train.kl"]) > 2


def test_dependence_is_the_planted_curve_within_its_interval(sweep):
    line = dependences(planted(sweep), "commonsense.gain", ["train.learning_rate"])["train.learning_rate"]
    truth = 0.1 * (5 + np.log10(line["value"].to_numpy(dtype=float)))
    inner = slice(2, -2)
    assert np.abs(line["mean"] - truth)[inner].max() < 0.02
    assert ((line["low"] < line["mean"]) & (line["mean"] < line["high"])).all()
    flat = dependences(planted(sweep), "commonsense.gain", ["train.schedule"])["train.schedule"]
    assert set(flat["value"]) == {"constant", "linear", "cosine"}
    assert np.ptp(flat["mean"]) < 0.01


def test_interaction_shows_the_planted_pair(sweep):
    table = interaction(planted(sweep), "math.forgetting", "lora.rank", "train.learning_rate")
    assert table.index.tolist() == [4, 8, 16, 32]
    slopes = table.iloc[:, -1] - table.iloc[:, 0]
    assert slopes[32] > 1.5 * slopes[4]


def test_bases_are_compared_at_equal_learning(sweep):
    found = two_bases(sweep)
    assert bases(found).unique().tolist() == ["a", "b"]
    lines = matched(found, "math.forgetting")
    assert lines["learnt"].min() >= 1 and lines["learnt"].max() <= 2
    second = lines[lines["base"] == "b"]
    assert second["difference"].to_numpy() == pytest.approx(0.1, abs=0.03)
    assert ((second["difference_low"] < 0.11) & (second["difference_high"] > 0.09)).mean() > 0.7
    assert (lines.loc[lines["base"] == "a", "difference"] == 0).all()


def test_bases_without_common_learning_are_not_compared(sweep):
    assert matched(two_bases(sweep, overlap=False), "math.forgetting").empty
    assert matched(planted(sweep), "math.forgetting").empty


def test_smooth_keeps_a_straight_line_and_allows_ties():
    x = np.linspace(0, 1, 20)
    assert smooth(x, 3 * x + 1, np.array([0.1, 0.5])) == pytest.approx([1.3, 2.5])
    assert smooth(np.zeros(5), np.arange(5.0), np.array([0.0])) == pytest.approx([2.0])


@pytest.mark.parametrize("objectives", OBJECTIVES)
@pytest.mark.parametrize("situation", NAMED)
def test_every_situation_has_importance_or_none(tmp_path, situation, objectives):
    sweep = SITUATIONS[situation](Builder(tmp_path)).load(objectives=OBJECTIVES[objectives])
    table = importance(sweep)
    assert table.index.tolist() == list(sweep.space)
    assert len(bases(sweep)) == len(sweep.trials)
    assert matched(sweep, sweep.objectives[0].metric).empty
    assert (
        dependences(sweep, sweep.objectives[0].metric, ["lora.rank"])["lora.rank"].empty
        == table[sweep.objectives[0].metric].isna().all()
    )


def test_names_of_trials_are_no_setting(tmp_path):
    builder = Builder(tmp_path).baseline()
    for number in range(13):
        builder.add((20 + number, 40 - number))
        builder.trials[-1]["params"] = {"model": f"tune-{number}"}
    sweep = builder.load(space=["model"])
    assert varied(sweep) == []
    assert importance(sweep).isna().all().all()
