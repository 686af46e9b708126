"""Cells of an ablation."""

import numpy as np
import pytest

from analysis.ablations.cells import Cells, Unknown, _steady, matches
from tests.factories.ablation_sweeps import DOSE, swept


def test_derived_points_match_only_if_selected():
    trained, derived = {"lora.rank": 8, "derive.samples": None}, {"lora.rank": 8, "derive.samples": 16}
    assert matches(trained, {"lora.rank": 8}) and not matches(derived, {"lora.rank": 8})
    assert matches(derived, {"derive.samples": (16, 32)})


def test_rounded_numbers_match_and_bools_do_not():
    assert matches({"a": 0.1 + 0.2}, {"a": 0.3})
    assert not matches({"a": True}, {"a": 1})


def test_selection_with_a_missing_cell_is_unknown(tmp_path):
    sweep = swept(tmp_path, DOSE)
    absent = {"data.replay.share": 0.9, "data.replay.source": "self"}
    cells = Cells(sweep, [absent])
    assert cells.find({"data.replay.source": "gsm8k"}).tolist() == [1, 2]
    with pytest.raises(Unknown):
        cells.find({"data.replay.source": "self"})


def test_column_has_a_value_for_each_cell_and_seed(tmp_path):
    column = Cells(swept(tmp_path, DOSE)).column("math.drop")
    assert column.values.shape == (len(DOSE), 1) and column.documents == 50
    assert column.influence.shape == (len(DOSE), 1, 50)


def test_base_s_score_is_steady_by_its_own_scatter():
    assert _steady(np.full(100, 120.0) + np.arange(100) % 2)  # a perplexity: its score is no share
    assert _steady(np.repeat([1.0, 0.0], 500)) and not _steady(np.repeat([1.0, 0.0], [1, 99]))
    assert not _steady(np.zeros(100))
