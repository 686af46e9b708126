"""The study in memory equals the study in the database, with other writers too, and each trial is read once."""

import subprocess
import sys
from collections import Counter
from pathlib import Path

import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import RDBStorage
from optuna.storages._cached_storage import _CachedStorage
from optuna.trial import TrialState, create_trial

from orchestrator.search.cached_storage import CachedStorage
from tests.factories import postgres

ROOT = Path(__file__).parents[3]
X = FloatDistribution(0.0, 1.0)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    if postgres.programs() is None:
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    pytest.importorskip("psycopg")
    with postgres.server(tmp_path_factory.mktemp("postgres") / "server") as url:
        yield url.replace("postgresql://", "postgresql+psycopg://")


@pytest.fixture(params=["sqlite", "postgres"])
def url(request, tmp_path) -> str:
    return f"sqlite:///{tmp_path}/study.db" if request.param == "sqlite" else request.getfixturevalue("server")


@pytest.fixture
def opened(url, tmp_path):
    """Opens the test's study with a new storage object, as another command would."""

    def make(kind=CachedStorage, sampler=None) -> optuna.Study:
        return optuna.create_study(
            study_name=tmp_path.name,
            storage=kind(RDBStorage(url)),
            directions=["maximize", "minimize"],
            load_if_exists=True,
            sampler=sampler or optuna.samplers.RandomSampler(seed=0),
        )

    return make


@pytest.fixture(autouse=True)
def _quiet():
    optuna.logging.set_verbosity(optuna.logging.ERROR)


def run(study: optuna.Study, trials: int, ahead: int = 3) -> None:
    """Runs trials, `ahead` at a time; every seventh fails, every fifth violates its constraint."""
    running = []
    for number in range(trials + ahead):
        if number < trials:
            trial = study.ask()
            trial.suggest_float("x", 0.0, 1.0)
            trial.suggest_categorical("rank", [4, 8, 16])
            trial.set_user_attr("key", f"key-{number}")
            running.append(trial)
        if number >= ahead:
            done = running.pop(0)
            x, rank = done.params["x"], done.params["rank"]
            if done.number % 7 == 6:
                study.tell(done, state=TrialState.FAIL)
                continue
            done.set_constraint("kept", 1.0 if done.number % 5 == 4 else -1.0)
            study.tell(done, [x * rank, (1 - x) ** 2])


def everything(study: optuna.Study) -> list[dict]:
    """Everything of every trial."""
    return [dict(vars(trial)) for trial in study.get_trials()]


@pytest.mark.parametrize(
    "sampler", [optuna.samplers.TPESampler, pytest.param(optuna.samplers.NSGAIISampler, marks=pytest.mark.slow)]
)
def test_trials_equal_those_of_optunas_cache(sampler, tmp_path):
    found = []
    for kind in (CachedStorage, _CachedStorage):
        storage = kind(RDBStorage(f"sqlite:///{tmp_path}/{kind.__name__}.db"))
        study = optuna.create_study(storage=storage, directions=["maximize", "minimize"], sampler=sampler(seed=3))
        run(study, 60)
        found.append([(t.number, t.state, t.values, t.params, t.user_attrs, t.system_attrs) for t in study.get_trials()])
    assert found[0] == found[1]
    assert len(found[0]) == 60


def test_memory_equals_the_database(opened):
    study = opened()
    run(study, 20)
    study.enqueue_trial({"x": 0.5})
    running = study.ask()
    running.suggest_float("x", 0.0, 1.0)
    running.set_user_attr("pair", (1, 2))  # a database gives back a list
    study.ask()
    assert everything(study) == everything(opened(_CachedStorage))
    assert everything(study)[20]["_user_attrs"] == {"pair": [1, 2]}


def test_write_is_in_the_database_at_once(opened):
    study, other = opened(), opened(_CachedStorage)
    trial = study.ask()
    assert other.get_trials()[0].state == TrialState.RUNNING
    trial.suggest_float("x", 0.0, 1.0)
    trial.set_user_attr("key", "a")
    assert other.get_trials()[0].params == trial.params
    study.tell(trial, [1.0, 2.0])
    assert opened(_CachedStorage).get_trials()[0].values == [1.0, 2.0]


def test_writes_of_another_driver_are_read(opened):
    one, two = opened(), opened()
    mine, theirs = one.ask(), two.ask()
    assert [trial.number for trial in one.get_trials()] == [0, 1] == [trial.number for trial in two.get_trials()]
    theirs.suggest_float("x", 0.0, 1.0)
    theirs.set_user_attr("driver", "two")
    assert one.get_trials()[1].params == theirs.params
    assert one.get_trials(states=(TrialState.RUNNING,))[1].user_attrs == {"driver": "two"}
    two.tell(theirs, [1.0, 0.5])
    one.tell(mine, state=TrialState.FAIL)
    assert [trial.state for trial in one.get_trials()] == [TrialState.FAIL, TrialState.COMPLETE]
    assert everything(one) == everything(two)


def test_queued_trial_is_started_by_one_of_two_drivers(opened):
    one, two = opened(), opened()
    one.enqueue_trial({"x": 0.25})
    assert [trial.state for trial in two.get_trials()] == [TrialState.WAITING]
    begun = two.ask()
    assert (begun.number, begun.suggest_float("x", 0.0, 1.0)) == (0, 0.25)
    assert one.ask().number == 1
    assert one.get_trials()[0].params == {"x": 0.25}


def test_adopted_trial_has_its_last_owners_values(opened):
    one, two = opened(), opened()
    trial = one.ask()
    before = two.get_trials()[0]
    trial.suggest_float("x", 0.0, 1.0)
    two._storage.set_trial_user_attr(before._trial_id, "driver", "two")
    assert two.get_trials()[0].params == trial.params
    assert two.get_trials()[0].user_attrs == {"driver": "two"}


def test_trial_finished_by_another_driver_is_not_writable(opened):
    one, two = opened(), opened()
    trial = one.ask()
    two.tell(trial.number, [1.0, 2.0])
    with pytest.raises(UpdateFinishedTrialError):
        trial.set_user_attr("key", "late")
    assert one.get_trials()[0].state == TrialState.COMPLETE
    assert everything(one) == everything(two)


def test_returned_trials_do_not_change(opened):
    study = opened()
    trial = study.ask()
    (before,) = study.get_trials(deepcopy=False)
    trial.suggest_float("x", 0.0, 1.0)
    trial.set_user_attr("key", "a")
    study.tell(trial, [1.0, 2.0])
    assert (before.state, before.params, before.user_attrs) == (TrialState.RUNNING, {}, {})


def test_trial_from_a_template_is_owned_while_it_runs(opened):
    one, two = opened(), opened()
    running = create_trial(state=TrialState.RUNNING, params={"x": 0.5}, distributions={"x": X})
    number = one._storage.create_new_trial(one._study_id, template_trial=running)
    one._storage.set_trial_user_attr(number, "free", True)
    one.add_trial(create_trial(values=[1.0, 2.0], params={"x": 0.1}, distributions={"x": X}))
    assert everything(one) == everything(two)
    assert [trial.state for trial in one.get_trials()] == [TrialState.RUNNING, TrialState.COMPLETE]


def test_each_trial_is_read_once(opened, monkeypatch):
    run(opened(), 30)
    study, reads = opened(), Counter()
    backend = study._storage._backend
    whole, single = backend._get_trials, backend.get_trial

    def read_all(*arguments):
        found = whole(*arguments)
        reads.update(trial.number for trial in found)
        return found

    def read_one(trial_id):
        found = single(trial_id)
        reads[found.number] += 1
        return found

    monkeypatch.setattr(backend, "_get_trials", read_all)
    monkeypatch.setattr(backend, "get_trial", read_one)
    run(study, 20, ahead=10)
    for _ in range(5):
        study.get_trials()
    assert set(reads.values()) == {1}
    assert len(reads) == 50


def test_kill_loses_no_trial(url, opened, tmp_path):
    opened()
    script = (
        "import os, sys, optuna; from optuna.storages import RDBStorage; "
        "from orchestrator.search.cached_storage import CachedStorage; "
        "optuna.logging.set_verbosity(optuna.logging.ERROR); "
        "study = optuna.load_study(study_name=sys.argv[1], storage=CachedStorage(RDBStorage(sys.argv[2]))); "
        "trials = [study.ask() for _ in range(5)]; [t.suggest_float('x', 0, 1) for t in trials]; "
        "[study.tell(t, [1.0, t.params['x']]) for t in trials[:3]]; print([t.params['x'] for t in trials], flush=True); "
        "os.kill(os.getpid(), 9)"
    )
    died = subprocess.run(
        [sys.executable, "-c", script, tmp_path.name, url], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert died.returncode == -9, died.stderr
    left = opened().get_trials()
    assert [trial.state.name for trial in left] == ["COMPLETE"] * 3 + ["RUNNING"] * 2
    assert str([trial.params["x"] for trial in left]) == died.stdout.strip()
