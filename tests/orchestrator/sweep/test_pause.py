"""A look measures what the whole trial measures, on the documents so far."""

import pytest

from analysis.stats.estimate import measure
from orchestrator.config.model import SweepConfig
from orchestrator.sweep.pause import criteria, pausing
from trials.evaluation.racing import Paused, Race


@pytest.fixture
def config(parts) -> SweepConfig:
    for role in parts["eval"].values():
        role["documents"] = 80
    parts["search"]["constraints"] = ["commonsense.drop <= 0.5"]
    return SweepConfig.model_validate(parts)


@pytest.fixture
def spec(config):
    return config.spec({})


def paused(worker, spec, config, rows, documents):
    asked = criteria(config, rows, documents)
    with pytest.raises(Paused) as found:
        worker.run(spec, early_stopping=lambda spec: pausing(asked, spec, worker.session.ledger, None))
    return found.value.look


def test_a_look_at_all_searched_documents_has_the_metrics_of_the_record(another, spec, config):
    worker = another()
    base = worker.run(spec.baseline())
    part = paused(worker, spec, config, 1.0, 0.25)
    assert (part["rows"], part["documents"]) == (1.0, 1.0), "a half or a quarter of 40 documents is too few"
    whole = paused(worker, spec, config, 1.0, 1.0)
    found = measure([worker.run(spec)], base, "search")
    assert set(whole["metrics"]) == {"commonsense.gain", "math.drop", "commonsense.drop"}
    for name, value in whole["metrics"].items():
        assert value == pytest.approx(found[name].value)
        assert whole["errors"][name] == pytest.approx(found[name].stderr, rel=0.3)


@pytest.mark.slow
def test_a_trial_whose_base_is_not_measured_yet_runs_to_its_end(another, spec, config):
    worker = another()
    asked = criteria(config, 0.5, 0.25)
    assert worker.run(spec, early_stopping=lambda spec: pausing(asked, spec, worker.session.ledger, None)).state == "complete"


def test_a_race_goes_on_beside_the_pause(spec, config, tmp_path):
    race = Race(["math"], "search", lambda record, share: "beaten")
    both = pausing(criteria(config, 1.0, 0.25), spec, None, race)
    assert both.judge(None, 0.25) == "beaten"
    assert both.roles == ["math", "commonsense"]
    assert both.pause.documents == 0.25
