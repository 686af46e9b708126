"""Slots on a cluster, and Ctrl-C."""

import signal

import pytest

from orchestrator.cluster import connect, runner
from orchestrator.config.model import Resources
from trials.errors import InputError

from ray.tune.execution.class_cache import _ActorClassCache  # isort: skip  # after connect, which sets Ray's environment


def cluster(monkeypatch, *nodes: dict[str, float]) -> None:
    whole = {name: sum(node.get(name, 0.0) for node in nodes) for name in ("CPU", "GPU")}
    monkeypatch.setattr(connect.ray, "cluster_resources", lambda: whole)
    monkeypatch.setattr(connect.ray, "nodes", lambda: [{"Alive": True, "Resources": node} for node in nodes])


def test_slots_are_what_fits_on_each_node(monkeypatch):
    cluster(monkeypatch, {"CPU": 8.0, "GPU": 1.0}, {"CPU": 2.0, "GPU": 4.0})
    slots = runner.Slots(Resources(cpus_per_trial=2, gpus_per_trial=0.5))
    assert slots() == 2 + 1
    assert slots.request() == {"CPU": 2, "GPU": 0.5}


def test_trial_that_fits_no_node_is_refused(monkeypatch):
    cluster(monkeypatch, {"CPU": 2.0}, {"CPU": 2.0})
    with pytest.raises(InputError, match="a trial asks for 4 CPUs"):
        runner.Slots(Resources(cpus_per_trial=4))
    assert runner.Slots(Resources(cpus_per_trial=4, max_concurrent=3))() == 3


def test_first_interrupt_lets_running_trials_finish():
    class Sweep:
        stopping, running = False, {"key": None}

        def stop(self) -> None:
            self.stopping = True

    sweep, lines = Sweep(), []

    def left() -> str:
        return "about 9 s left" if sweep.stopping else "about an hour left"

    with pytest.raises(KeyboardInterrupt), runner.interruptible(sweep, lines.append, left):
        signal.raise_signal(signal.SIGINT)
        assert sweep.stopping
        assert lines == ["stopping: 1 running to finish (about 9 s left); Ctrl-C again stops at once"]
        signal.raise_signal(signal.SIGINT)


def test_tune_copies_no_key_of_a_store(monkeypatch):
    assert "AWS_SECRET_ACCESS_KEY" not in runner.class_cache.ENV_VARS_TO_PROPAGATE
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret-of-a-test")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "secret-of-a-test")
    actor = _ActorClassCache().get(type("Trainable", (), {}))
    assert "secret-of-a-test" not in str(actor._default_options)
