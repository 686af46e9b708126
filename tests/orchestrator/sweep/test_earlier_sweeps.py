"""A new sweep begins with what the trials of the storage's other sweeps show."""

import json

import pytest

from orchestrator.config.model import SweepConfig
from orchestrator.search.earlier import EARLIER, as_trial
from orchestrator.search.evidence import Aim, Evidence
from orchestrator.sweep.controller import SweepController
from orchestrator.sweep.earlier_sweeps import earlier_trials, summary
from tests.factories.sweep_state import complete, run_out

RATE = {"type": "float", "low": 1e-4, "high": 1e-2, "log": True}


@pytest.fixture
def searched(parts):
    """Makes the config of a search by the Gaussian process; keywords change other sections."""
    parts["space"] = {"train.learning_rate": RATE, "lora.rank": {"type": "categorical", "choices": [2, 4, 8]}}

    def made(name="new", search=None, **sections):
        whole = parts | {"name": name} | {key: parts.get(key, {}) | section for key, section in sections.items()}
        return SweepConfig.model_validate(whole | {"search": parts["search"] | {"sampler": "gp", "trials": 6} | (search or {})})

    return made


def finish(config, storage):
    sweep = SweepController.open(config, storage)
    with sweep.going():
        run_out(sweep)


@pytest.fixture
def storage(searched, tmp_path):
    """With a finished sweep of six trials."""
    finish(searched("old"), tmp_path)
    return tmp_path


def test_trials_with_the_same_other_settings_have_no_context(searched, storage):
    found = earlier_trials(searched(), storage)
    assert len(found) == 6
    assert all(one.context == {} for one in found)
    assert all(one.settings.keys() == {"train.learning_rate", "lora.rank"} for one in found)


def test_settings_that_are_not_searched_are_the_context(searched, storage):
    found = earlier_trials(searched(train={"epochs": 3}), storage)
    assert len(found) == 6
    assert all(one.context == {"train.epochs": 1} for one in found)


def test_another_seed_is_no_other_context(searched, storage):
    assert all(one.context == {} for one in earlier_trials(searched(train={"seed": 7}), storage))


def test_points_outside_the_space_are_left_out(searched, storage, parts):
    parts["space"]["train.learning_rate"] = RATE | {"high": 1e-3}
    found = earlier_trials(searched(), storage)
    assert 0 < len(found) < 6
    assert all(one.settings["train.learning_rate"] <= 1e-3 for one in found)


def test_another_task_of_a_role_that_counts_is_left_out(searched, storage, parts):
    parts["eval"]["math"]["task"] = "another_task"
    assert earlier_trials(searched(), storage) == []


def test_metrics_that_were_not_measured_leave_a_trial_out(searched, storage):
    assert earlier_trials(searched(search={"objectives": ["commonsense.gold_bpb_delta"]}), storage) == []


def test_a_constraint_counts_however_its_bound_is_written(searched, storage):
    config = searched(search={"constraints": ["commonsense.forgetting <= 0.50"]})
    trials = [as_trial(one, config) for one in earlier_trials(config, storage)]
    assert Evidence.of(trials, Aim.of(config)).values[:, 2].tolist() == [0.5] * 6  # nothing is forgotten


def test_fewer_than_four_trials_of_a_context_say_nothing(searched, tmp_path):
    finish(searched("old", search={"trials": 3}), tmp_path)
    assert len(earlier_trials(searched(), tmp_path)) == 3
    assert earlier_trials(searched(train={"epochs": 3}), tmp_path) == []


@pytest.mark.parametrize("search", [{"sampler": "random"}, {"sampler": "tpe"}, {"warm_start": False}])
def test_nothing_is_read_for_a_search_that_learns_nothing_from_it(searched, storage, search):
    assert earlier_trials(searched(search=search), storage) == []


def test_damage_in_another_sweep_leaves_it_out_and_changes_nothing(searched, storage):
    found = earlier_trials(searched(), storage)
    record = storage / "ledger" / found[0].key / "record.json"
    record.write_text("{")
    assert len(earlier_trials(searched(), storage)) == 5
    assert record.read_text() == "{"
    (storage / "old" / "manifest.json").write_text("{")
    assert earlier_trials(searched(), storage) == []


def test_the_study_keeps_what_the_sweep_began_with(searched, storage):
    sweep = SweepController.open(searched(), storage)
    begun = sweep.study.optuna_study.user_attrs[EARLIER]
    assert len(begun) == 6
    complete(sweep, sweep.next_job())
    del sweep
    finish(searched("third"), storage)
    again = SweepController.open(searched(), storage)
    assert again.study.optuna_study.user_attrs[EARLIER] == json.loads(json.dumps(begun))


def test_summary_counts_trials_by_what_differs(searched, storage):
    assert summary(earlier_trials(searched(), storage)) == (
        "the search begins with 6 trials of other sweeps: 6 with the same settings"
    )
    assert summary(earlier_trials(searched(train={"epochs": 3, "kl": 0.1}), storage)) == (
        "the search begins with 6 trials of other sweeps: 6 with another train.epochs, train.kl"
    )
    assert summary([]) == ""
