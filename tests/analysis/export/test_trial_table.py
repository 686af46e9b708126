"""Tables of trials."""

import pandas as pd
import pytest

from analysis.export.trial_table import front_table, shown_metrics, standing, trial_table
from tests.factories.sweeps import Builder, oom


@pytest.fixture
def sweep(tmp_path):
    builder = Builder(tmp_path).baseline().add((26, 37)).add((24, 40)).add((23, 38)).add((40, 10))
    return builder.add(failure=oom()).load()


def test_front_table_has_the_front_only(sweep):
    table = front_table(sweep)
    assert [row[0] for row in table.rows] == ["#0", "#1"]
    assert table.columns[-1].cells == list(sweep.front["key"])


def test_every_trial_has_its_standing(sweep):
    flags = pd.Series("", index=sweep.trials.index)
    table = trial_table(sweep, sweep.trials, flags, [0], brief=False)
    assert list(table.kinds) == ["front", "front", "dominated", "outside", "failed"]
    assert [standing(row) for row in sweep.trials.to_dict("records")] == list(table.kinds)
    assert '<a href="#trial-0">' in table.columns[0].cells[0] and table.columns[0].cells[1] == "#1"


def test_forgetting_rate_follows_its_drop(sweep):
    shown = shown_metrics(sweep)
    assert shown.index("math.drop") + 1 == shown.index("math.forgetting")
