import math

import numpy as np
import pytest

from analysis.results import schema as col
from tests.factories.sweeps import NASTY, TWO


def test_trial_has_state_settings_metrics_and_rank(usual):
    trials = usual.load().trials.set_index("number")
    assert trials["state"].tolist() == ["complete"] * 4 + ["failed", "pending"]
    assert trials["lora.rank"].tolist() == [1, 2, 3, 4, 5, 6]
    assert trials["feasible"].tolist() == [True, True, True, False, False, False]
    assert trials["on_front"].tolist() == [True, True, False, False, False, False]
    assert trials["front_rank"].tolist() == [0, 0, 1, -1, -1, -1]
    assert trials.loc[0, "commonsense.gain"] == pytest.approx(6 / 50)
    assert trials.loc[0, "math.forgetting"] == pytest.approx(3 / 40)
    assert trials["paired"].tolist() == [True] * 4 + [False] * 2
    assert trials.loc[0, "seconds"] == 5.5
    assert trials.loc[4, "failure"] == f"OutOfMemoryError: {NASTY}"
    assert trials.loc[[4, 5], "commonsense.gain"].isna().all()


def test_standard_errors_are_paired_where_documents_are(builder):
    trials = builder.baseline().add((26, 37)).add((26, 37), documents=False).load().trials
    differences = np.repeat([1.0, 0.0], [6, 44])
    assert trials["commonsense.gain_se"][0] == pytest.approx(differences.std(ddof=1) / math.sqrt(50))
    assert trials["commonsense.gain_se"][1] > trials["commonsense.gain_se"][0]
    assert trials["paired"].tolist() == [True, False]


def test_constraint_on_an_undefined_metric_is_violated(builder):
    sweep = builder.baseline((20, 0)).add((25, 0)).load(objectives=TWO[:1])
    assert sweep.trials["state"].tolist() == ["complete"]
    assert not sweep.trials["feasible"].any()
    assert sweep.hypervolume is None


def test_only_a_complete_trial_is_feasible(usual):
    assert usual.load(constraints=[]).trials["feasible"].tolist() == [True] * 4 + [False] * 2


def test_replicates_give_means_and_spread(builder):
    sweep = builder.baseline().replicate((26, 37), (22, 39)).add((21, 40)).load()
    first, second = sweep.trials.to_dict("records")
    assert first["replicates"] == 2 and second["replicates"] == 1
    assert first["commonsense.gain"] == pytest.approx(4 / 50)
    assert first["commonsense.gain_sd"] == pytest.approx(4 / 50 / math.sqrt(2))
    assert first["commonsense.gain_se"] > first["commonsense.gain_sd"] / math.sqrt(2)
    assert math.isnan(second["commonsense.gain_sd"])
    assert first["paired"] and first["on_front"]
    assert first["seconds"] == 2 * 5.5
    assert len(sweep.records) == 4


def test_frame_has_exactly_the_columns_of_the_schema(usual):
    sweep = usual.load()
    expected = {"number", "key", "replicates", "baseline", "state", *sweep.space, "paired", "seconds", "failure"}
    expected |= {"feasible", "front_rank", "on_front", "p_front", "p_feasible", "correlation"}
    expected |= {"p:math.forgetting <= 0.1"}
    for name in sweep.metrics:
        expected |= {name, col.se(name), col.sd(name), *col.ends(name), col.searched(name)}
    for one in sweep.objectives:
        expected |= set(col.interval(col.corrected(one.metric)).values())
    assert set(sweep.trials) == expected


def test_trial_that_the_base_dominates_is_not_on_the_front(builder):
    sweep = builder.baseline().add((18, 39)).add((25, 38)).add((20, 40)).load(constraints=[])
    trials = sweep.trials.set_index("number")
    assert trials["on_front"].tolist() == [False, True, True]  # the last equals the base
    assert trials["front_rank"].tolist() == [1, 0, 0]
    assert trials["p_front"][0] < 0.5 < trials["p_front"][1]
    (base,) = sweep.baselines.to_dict("records")
    assert base["on_front"]
    assert base["feasible"]
    assert (base["commonsense.gain"], base["math.forgetting"]) == (0.0, 0.0)


def test_base_that_breaks_a_constraint_beats_nothing(builder):
    sweep = builder.baseline().add((18, 38)).load(constraints=["commonsense.value <= 0.37"])
    assert not sweep.baselines["feasible"].any()
    assert sweep.trials["on_front"].tolist() == [True]


def test_corrected_intervals_hold_no_impossible_gain(builder):
    builder.baseline((0, 40))
    for right in (50, 50, 50, 50, 20):
        builder.add((right, 40))
    trials = builder.load().trials
    assert trials[col.high(col.corrected("commonsense.gain"))].max() <= 1
    assert trials[col.high("commonsense.gain")].max() <= 1
