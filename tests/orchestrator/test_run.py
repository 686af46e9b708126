"""One driver a sweep, and what a command does before it starts a Ray."""

import contextlib
import io

import pytest

from orchestrator import run
from orchestrator.config.model import SweepConfig
from orchestrator.console.terminal import Terminal
from orchestrator.errors import SweepFailed
from orchestrator.sweep.callback import OnTrial
from orchestrator.sweep.controller import SweepController
from orchestrator.sweep.earlier_run import pinned
from tests.factories.sweep_state import complete, leave, run_out, states
from trials.errors import InputError


def test_second_driver_is_refused_until_the_first_ends(tmp_path):
    refused = pytest.raises(InputError, match="this sweep is being run already")
    with run._only_driver(tmp_path), refused, run._only_driver(tmp_path):
        pass
    with run._only_driver(tmp_path):
        pass


def test_finished_sweep_starts_no_ray(parts, tmp_path, monkeypatch):
    config = SweepConfig.model_validate(parts)
    sweep = SweepController.open(pinned(config, tmp_path), tmp_path)
    with sweep.going():
        run_out(sweep)
    monkeypatch.setattr(run, "_ray_and_checked_inputs", lambda *_: pytest.fail("starts a Ray"))
    console = Terminal(file=io.StringIO(), width=160)
    assert run.drive(config, tmp_path, None, console) == 0
    assert "all 2 trials are done" in console.file.getvalue()


def test_trials_without_a_usable_baseline_are_reported_by_the_next_command(parts, tmp_path):
    """The first one was killed when the baseline had its record, and its trials had not been reported."""
    rate = [{"metric": "math.forgetting", "direction": "minimize"}, {"metric": "commonsense.gain", "direction": "maximize"}]
    parts["search"].update(objectives=rate, constraints=[])
    parts["space"]["base.quantization"] = {"type": "categorical", "choices": ["nf4", "none"]}
    config = SweepConfig.model_validate(parts)
    sweep = SweepController.open(pinned(config, tmp_path), tmp_path)
    unusable, usable = sweep.next_job(), sweep.next_job()
    complete(sweep, usable, math=0.5)
    run_out(sweep)
    leave(sweep, unusable, math=0.0)
    assert "running" in states(sweep)
    assert run.drive(config, tmp_path, None, Terminal(file=io.StringIO(), width=160)) == 0
    assert set(states(SweepController.open(config, tmp_path))) == {"complete", "failed"}


def test_unfit_folder_of_ray_is_found_before_any_input_is_read(parts, tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path / "none"))
    monkeypatch.setattr(run, "pinned", lambda *_: pytest.fail("reads inputs first"))
    console = Terminal(file=io.StringIO(), width=160)
    with pytest.raises(InputError, match=r"RAY_TMPDIR: .*none: "):
        run.drive(SweepConfig.model_validate(parts), tmp_path, None, console)
    assert console.file.getvalue() == ""


def test_driver_leaves_a_shared_study_where_the_run_never_begins(parts, tmp_path, monkeypatch):
    """A notebook's process goes on: its next call would wait for what this one adopted."""
    parts["search"]["study"] = "journal"
    config = SweepConfig.model_validate(parts)
    dead = SweepController.open(pinned(config, tmp_path), tmp_path)
    for _ in range(2):
        dead.next_job()
    dead.study.drivers.leave()
    monkeypatch.setattr(run, "_ray_and_checked_inputs", contextlib.contextmanager(lambda *_: (yield)))
    monkeypatch.setattr("orchestrator.cluster.prefetch.prestage", lambda *_: 1 / 0)
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            run.drive(config, tmp_path, None, Terminal(file=io.StringIO()))
    assert SweepController.open(config, tmp_path).study.drivers.last()


@pytest.mark.parametrize(("error", "dropped"), [(KeyboardInterrupt, True), (SweepFailed, False)])
def test_interrupted_sweep_waits_for_no_function_of_the_users(parts, tmp_path, monkeypatch, error, dropped):
    def ends(*arguments):
        raise error

    monkeypatch.setattr(run, "_ray_and_checked_inputs", contextlib.contextmanager(lambda *_: (yield)))
    monkeypatch.setattr("orchestrator.cluster.prefetch.prestage", ends)
    observer, drops = OnTrial(print), []
    monkeypatch.setattr(observer, "drop", lambda: drops.append(True))
    with pytest.raises(error):
        run.drive(SweepConfig.model_validate(parts), tmp_path, None, Terminal(file=io.StringIO()), [observer])
    assert bool(drops) == dropped
    assert not observer._thread.is_alive()


@pytest.mark.parametrize(
    ("address", "loopback"),
    [("127.0.0.1:6379", True), ("localhost:6379", True), ("[::1]:6379", True), ("10.0.0.5:6379", False), ("node:6379", False)],
)
def test_clusters_on_loopback_are_recognised(address, loopback):
    assert run._on_loopback(address) == loopback
