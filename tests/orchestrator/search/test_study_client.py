"""Plain values in, plain values out; Optuna has the rest."""

import pytest

from orchestrator.config.model import SweepConfig
from orchestrator.search.study_client import Outcome, StudyClient
from trials.ledger.record import GivenUp


@pytest.fixture
def config(parts) -> SweepConfig:
    return SweepConfig.model_validate(parts)


@pytest.fixture
def client(config, tmp_path):
    """Opens the study; a second call is another process with sqlite."""
    seen: list[dict] = []

    def opened() -> StudyClient:
        return StudyClient.open(config, tmp_path, lambda settings: settings in seen, lambda line: None)

    opened.seen = seen
    return opened


def test_outcomes_are_read_back_as_they_were_reported(client):
    study = client()
    done, failed, pruned = (study.begin({"lora.rank": 2}) for _ in range(3))
    beaten = GivenUp(reason="beaten", seconds=1.0)
    study.accept(done.number, "done")
    study.complete(done.number, Outcome([0.5, 0.25], {"math.drop <= 0.5": float("inf")}, errors={"math.drop": 0.1}))
    study.fail(failed.number, "its baseline failed")
    study.prune(pruned.number, beaten, ["math.drop <= 0.5"])
    for trials in (study.trials(), client().trials()):
        assert [trial.state for trial in trials] == ["complete", "failed", "pruned"]
        assert [trial.key for trial in trials] == ["done", None, None]
        assert trials[0].values == [0.5, 0.25]
        assert trials[0].constraints == trials[2].constraints == {"math.drop <= 0.5": 1e6}
        assert study.optuna_study.trials[0].user_attrs["errors"] == {"math.drop": 0.1}
        assert trials[1].failure == "its baseline failed"
        assert trials[2].given_up == beaten
        assert all(trial.free for trial in trials)
        assert study.settings(trials[0]) == {"lora.rank": 2}


def test_constraints_are_an_attribute_that_the_dashboard_shows(client):
    study = client()
    study.complete(study.begin({"lora.rank": 2}).number, Outcome([0.0, 0.0], {"math.drop <= 0.5": -0.2}))
    assert study.optuna_study.trials[0].user_attrs["constraints"] == "math.drop <= 0.5 is kept, by 0.2"


def test_trial_that_the_base_beats_is_no_good_one_for_the_sampler(client):
    study = client()
    study.enqueue([])
    worse, other = study.begin({"lora.rank": 2}), study.begin({"lora.rank": 4})
    study.accept(worse.number, "worse")
    study.accept(other.number, "other")
    study.complete(worse.number, Outcome([-0.1, 0.2], {}, behind_base=0.1))
    study.complete(other.number, Outcome([0.1, 0.2], {}, behind_base=-0.1))
    assert [list(trial.constraints.values()) for trial in client().trials()] == [[0.1], [-0.1]]


def test_study_of_an_earlier_version_gets_no_constraint_for_the_base(client):
    study = client()
    study.optuna_study.set_user_attr("opened", True)
    study.enqueue([])
    trial = study.begin({"lora.rank": 2})
    study.accept(trial.number, "trial")
    study.complete(trial.number, Outcome([-0.1, 0.2], {"math.drop <= 0.5": 0.1}, behind_base=0.1))
    assert list(client().trials()[0].constraints) == ["math.drop <= 0.5"]


def test_rejected_settings_are_a_failed_trial_without_a_key(client):
    study = client()
    study.reject(study.begin({"lora.rank": 4}))
    (trial,) = study.trials()
    assert (trial.state, trial.key, trial.rejected) == ("failed", None, {"lora.rank": 4})


def test_running_trials_are_adopted_with_their_settings(client):
    first = client().ask()
    (adopted,) = client().adopt()
    assert adopted == first
    assert not adopted.free


def test_exhausted_space_proposes_nothing(client):
    study = client()
    for _ in range(2):
        client.seen.append(study.ask().settings)
    assert study.ask() is None


def test_enqueued_points_come_first_and_once(client):
    study = client()
    assert study.is_new
    for _ in range(2):
        study.enqueue([{"lora.rank": 4}])
    assert not study.is_new
    assert [trial.state for trial in study.trials()] == ["waiting"]
    assert study.ask().settings == {"lora.rank": 4}


def test_a_base_is_noted_once_and_read_back(client):
    study = client()
    study.note_base("key", [0.0, 0.0])
    study.note_base("key", [0.0, 0.0])
    assert client().optuna_study.user_attrs["base.key"] == [0.0, 0.0]
