"""The numbers of a model card."""

import pytest

from analysis.formatting import labels
from analysis.report.model_card import numbers, outside
from tests.factories.sweeps import Builder


def test_merged_model_is_inside_its_adapter_s_interval_only_if_its_score_is(tmp_path):
    sweep = Builder(tmp_path).baseline((20, 40)).add((26, 37)).add((26, 2)).load()
    adapter, lost = (sweep.records[key] for key in sweep.trials["key"])
    base = sweep.records[sweep.trials["baseline"][0]]
    same = numbers(adapter, adapter, base, "all")
    assert all(role["inside"] for role in same["roles"].values()) and outside(same) == []
    (line,) = outside(numbers(adapter, lost, base, "all"))
    assert line.startswith("math 4.0 % is outside of the adapter's 74.0 %")


def test_merged_model_that_lost_many_documents_and_won_none_is_outside(tmp_path):
    builder = Builder(tmp_path).baseline((20, 40)).add((26, 40)).add((26, 34)).add((26, 39)).load()
    adapter, lost, alike = (builder.records[key] for key in builder.trials["key"])
    base = builder.records[builder.trials["baseline"][0]]
    found = numbers(adapter, lost, base, "all")
    math = found["roles"]["math"]
    assert math["adapter"]["low"] <= math["merged"]["value"]  # within the adapter's own interval
    assert not math["inside"]
    (line,) = outside(found)
    assert line.startswith("math: on the same documents the merged model is \N{MINUS SIGN}12.0 points from the adapter")
    assert outside(numbers(adapter, alike, base, "all")) == []


def test_forgetting_of_a_suite_is_shown_where_the_sweep_names_it(tmp_path):
    sweep = Builder(tmp_path).baseline((20, 40)).add((26, 37)).load()
    adapter, base = sweep.records[sweep.trials["key"][0]], sweep.records[sweep.trials["baseline"][0]]
    worst = "commonsense+math.worst_forgetting"
    assert worst not in numbers(adapter, adapter, base, "all")["metrics"]
    shown = numbers(adapter, adapter, base, "all", [worst])["metrics"]
    assert shown[worst]["merged"]["value"] == shown["math.forgetting"]["merged"]["value"] == pytest.approx(3 / 40)


def test_role_that_is_no_share_is_outside_in_its_own_unit(monkeypatch):
    monkeypatch.setattr(labels, "_NO_SHARES", {"notes"})
    notes = {"inside": False, "merged": {"value": 61.2}, "adapter": {"value": 55.1, "low": 54.0, "high": 56.0}, "n": 10}
    (line,) = outside({"roles": {"notes": notes}})
    assert line == "notes 61.200 is outside of the adapter's 55.100 (95 %: 54.000 to 56.000)"
