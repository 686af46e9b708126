"""Replays: what levers save is told as it would be, and without levers they change nothing."""

import json

import numpy as np
import pandas as pd
import pytest

from analysis.results.load import load
from analysis.stats.racing import Interim
from orchestrator.import_results import Request, import_results
from tests.benchmarks.replay import Stored, _parents, encoded, reached, recall, replay, row, saving, stored
from tests.factories.lm_eval_folder import base_and_tunes, shares, write
from tests.factories.sweeps import Builder
from trials.errors import InputError


def sweep(n=60, groups=None, seed=0):
    """Two objectives that two of three settings decide; training and evaluation take a second each."""
    random = np.random.default_rng(seed)
    x = random.random((n, 3))
    values = np.column_stack([x[:, 0] + 0.1 * x[:, 1], (1 - x[:, 0]) ** 2 + 0.3 * x[:, 1]])
    interim = [Interim(share, values, [None, None], [1, 1]) for share in (0.125, 0.25, 0.5, 1.0)]
    parent = np.arange(n) if groups is None else np.asarray(groups)
    return Stored(interim, np.ones(n, bool), np.array([2.0, 2.0]), np.ones(n), np.ones(n), x, parent)


def test_without_levers_all_points_run_in_order():
    one, order = sweep(), np.random.default_rng(1).permutation(60).tolist()
    course = replay(one, order)
    assert course.known == order and course.seconds == 120 == course.ends[-1] and recall(one, course) == 1.0
    assert 0 < reached(one, course) <= 120


def test_racing_pays_training_and_first_stage_of_dominated_points():
    one = sweep()
    course = replay(one, list(range(60)), ["racing"])
    assert course.given_up and recall(one, course) == 1.0  # what is interim of it here is certain
    assert course.seconds == pytest.approx(120 - 0.875 * len(course.given_up))
    assert sorted([*course.known, *course.given_up]) == list(range(60))


def test_nested_pays_one_training_per_group():
    one = sweep(groups=[place - place % 4 for place in range(60)])
    assert replay(one, list(range(60)), ["nested"]).seconds == 60 + 15


def test_promising_reaches_the_front_sooner():
    one, ratios = sweep(n=100), []
    for seed in range(3):
        order = np.random.default_rng(seed).permutation(100).tolist()
        course = replay(one, order, ["promising"])
        assert sorted(course.known) == list(range(100)) and course.known[:12] == order[:12]
        ratios.append(reached(one, course) / reached(one, replay(one, order)))
    assert np.median(ratios) < 0.8


def test_sets_of_levers_share_their_orders():
    rows = list(saving(sweep(n=20), 2))
    assert [row["levers"] for row in rows][:3] == [["racing"], ["nested"], ["promising"]] and len(rows) == 7
    assert rows[1]["time"] == [1.0, 1.0] and json.dumps(rows)  # no two points share a training here


def test_parent_is_the_longest_training_with_the_same_settings():
    others = pd.DataFrame({"lora.rank": [4, 8, 4, 4], "data.mix": ["a", "a", "a", "b"]})
    assert _parents(others, [32, 64, 128, 16]).tolist() == [2, 1, 2, 3]


def test_numbers_are_encoded_by_rank_and_texts_one_hot():
    found = encoded(pd.DataFrame({"rate": [1e-4, 1e-3, 1e-2], "targets": ["qkv", "mlp", "qkv"]}))
    assert found[:, 0].tolist() == [0.0, 0.5, 1.0] and found[:, 1:].tolist() == [[0, 1], [1, 0], [0, 1]]


def test_row_shows_median_and_range():
    found = {"levers": ["racing", "nested"], "time": [0.2, 0.4, 0.8], "whole": [0.5], "recall": [1.0]}
    assert row(found) == "| racing + nested | 0.40 (0.20 to 0.80) | 0.50 (0.50 to 0.50) | 1.00 (1.00 to 1.00) |"


def test_sweep_that_is_too_small_is_refused(tmp_path):
    with pytest.raises(InputError, match="1 complete trials; a replay needs more than"):
        stored(Builder(tmp_path).baseline().add((26, 37)).load())


def test_imported_results_have_no_time_to_save(tmp_path):
    source = base_and_tunes(tmp_path / "out")
    for number in range(12):
        write(source, {"pretrained": "org/base", "peft": f"me/tune-{number}"}, {"gsm": shares(40), "swag": shares(30 + number)})
    import_results(source, tmp_path / "runs", Request("there"), print)
    with pytest.raises(InputError, match="its results were imported, so no time was spent here that a replay could save"):
        stored(load(tmp_path / "runs" / "there"))
