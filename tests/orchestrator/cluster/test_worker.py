"""The outcomes that a worker process reports."""

import psutil
import pytest
from ray import _raylet

from orchestrator.cluster.searcher import StudySearcher
from orchestrator.cluster.worker import TrialActor
from orchestrator.config.model import SweepConfig
from orchestrator.sweep.controller import SweepController
from tests.factories.ray_workers import runs_a_trial
from tests.factories.sweep_state import complete
from trials.ledger.trial_progress import TrialProgress
from trials.spec import TrialSpec


def test_worker_that_cannot_start_is_a_failed_record(parts, tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # the worker sets it
    sweep = SweepController.open(SweepConfig.model_validate(parts), tmp_path)
    complete(sweep, sweep.next_job())
    searcher = StudySearcher(sweep, lambda: 1)
    suggested = searcher.suggest("trial")
    actor = object.__new__(TrialActor)  # without what Ray adds around it
    actor.setup(suggested, storage=str(tmp_path), mirror=str(tmp_path / "nowhere"))
    searcher.on_trial_complete("trial", actor.step())
    failed = sweep.ledger.read(TrialSpec.model_validate_json(suggested["jobs"][0]["spec"]).key)
    assert failed.state == "failed"
    where = tmp_path / "nowhere"
    assert failed.failure.message == f"the worker cannot start: InputError: hub_mirror: {where} is not a folder"


@pytest.fixture
def title():
    before = _raylet.getproctitle()
    yield _raylet.getproctitle
    _raylet.setproctitle(before)


def test_title_of_the_process_names_sweep_trial_and_phase(parts, tmp_path, title):
    sweep = SweepController.open(SweepConfig.model_validate(parts), tmp_path)
    actor = object.__new__(TrialActor)
    for name in ("baseline", "trial 0"):
        actor.reset_config(StudySearcher(sweep, lambda: 1).suggest(name))
        actor._show(TrialProgress(key=actor.specs[0].key, phase="train"))
        assert title() == f"ray::slimsweep little {name} train"
        complete(sweep, next(iter(sweep.running.values())))
    actor._show(TrialProgress(key="of-a-parent", phase="load"))
    assert title() == "ray::slimsweep little trial 0 load"
    assert runs_a_trial(psutil.Process())  # the tests of lost workers find them by this title


def test_a_trial_pauses_in_the_worker_and_ends_when_it_goes_on(parts, tmp_path, monkeypatch, title):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    parts["search"] |= {"sampler": "gp", "trials": 1, "multi_fidelity": True}
    sweep = SweepController.open(SweepConfig.model_validate(parts), tmp_path)
    searcher, actor = StudySearcher(sweep, lambda: 1), object.__new__(TrialActor)
    actor.setup(searcher.suggest("baseline"), storage=str(tmp_path))
    searcher.on_trial_complete("baseline", actor.step())
    actor.reset_config(searcher.suggest("look"))
    searcher.on_trial_complete("look", actor.step())
    (trial,) = sweep.state.queue.paused.values()
    assert (trial.look.rows, trial.look.documents) == (1.0, 1.0), "with twelve documents only the whole half says anything"
    assert trial.look.seconds > 0
    assert sweep.spent[0] > trial.look.seconds
    actor.reset_config(searcher.suggest("rest"))
    searcher.on_trial_complete("rest", actor.step())
    assert sweep.counts == {"done": 1, "failed": 0, "given up": 0}
    assert searcher.suggest("none") == "FINISHED"
    record = sweep.ledger.complete(trial.specs[0].key)
    assert record.resumed, "the training was not repeated"
