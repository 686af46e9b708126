import pandas as pd
import pytest

from analysis.explore.failure_signatures import flags, paper_point, verdicts
from analysis.metrics.names import Objective
from tests.factories.sweeps import Builder
from trials.ledger.outcomes import Scale


def test_unmeasured_metric_shows_no_signature(tmp_path):
    found = verdicts(Builder(tmp_path).baseline().add((22, 40)).load())
    assert found["knowledge loss"].tolist() == ["not measured"]


def test_paper_is_a_point_only_in_objectives_that_it_measured():
    gain, forgetting = (
        Objective(metric="commonsense.gain", direction="maximize"),
        Objective(metric="math.forgetting", direction="minimize"),
    )
    assert paper_point((gain, forgetting)) == pytest.approx([0.0043, 0.88])
    assert paper_point((gain, Objective(metric="math.value", direction="maximize"))) is None


def test_flags_mark_what_cannot_be_decided():
    row = pd.Series({"math collapse": "yes", "knowledge loss": "cannot tell"})
    assert flags(row) == "math collapse, knowledge loss?"
    assert flags(row.replace({"yes": "no", "cannot tell": "not measured"})) == ""


def test_error_shows_no_collapse_of_a_score(tmp_path):
    """A perplexity that rises by 80 % has lost no score. A score of 0 to 100 may."""
    sweep = Builder(tmp_path / "a").baseline().add((20, 1), scales={"math": Scale(share=False)}).load()
    assert verdicts(sweep)["math collapse"].tolist() == ["cannot tell"]
    builder, scales = Builder(tmp_path).baseline((20, 40)), {"math": Scale(share=False, higher_is_better=False)}
    found = verdicts(builder.add((20, 1)).load())
    assert found["math collapse"].tolist() == ["yes"]
    sweep = builder.add((20, 1), scales=scales).load()
    assert set(verdicts(sweep)["math collapse"]) == {"not measured"}
    assert paper_point(sweep.objectives) is None
