"""Tables of an ablation's page."""

import dataclasses

from analysis.ablations import tables
from tests.factories.ablation_sweeps import DOSE, KEPT, asked, swept, verdicts


def test_summary_names_the_base_only_if_there_are_several():
    one = asked(None, verdicts=verdicts())
    other = dataclasses.replace(one, base="other")
    assert "base" not in [column.name for column in tables.summary({"a": one}).columns]
    assert "base" in [column.name for column in tables.summary({"a": one, "b": other}).columns]


def test_points_show_varied_settings_only(tmp_path):
    points = [(settings | {"lora.rank": 8}, right) for settings, right in DOSE]
    answer = asked(swept(tmp_path, points))
    heads = [column.name for column in tables.points(answer).columns]
    assert heads[0] == "point" and "replay share" in heads and "rank" not in heads
    assert tables.constant_settings(answer) == "In all: rank 8."


def test_effects_list_a_few_seeds_one_by_one():
    (row,) = tables.effects(asked(None, effects=(KEPT,))).rows
    assert [str(cell) for cell in row] == ["commonsense kept", "+1.2 points (−2.1 to +4.6)", "2 (+1.1, +2.3)", "250"]


def test_shared_effect_is_listed_once():
    again = dataclasses.replace(KEPT, name="again")
    assert len(tables.effects(asked(None, effects=(KEPT, again))).rows) == 1


def test_our_results_need_the_papers_design(tmp_path):
    answer = asked(swept(tmp_path, DOSE))
    assert tables.own_results(answer) == []
    assert len(tables.own_results(dataclasses.replace(answer, name="paper"))) == 2 * len(DOSE)
