"""A local Ray is started again where it was too slow; otherwise one line says what to do."""

import os
import platform
import subprocess
import sys
import tomllib
from pathlib import Path
from types import SimpleNamespace

import pytest
import ray
from ray._private.utils import check_version_info

from orchestrator.cluster import connect
from orchestrator.config.model import Resources
from orchestrator.errors import SweepFailed
from tests.factories.command import ROOT
from trials.errors import InputError


class SlowRay:
    """Times out a number of times, as Ray does on a busy machine."""

    def __init__(self, times, message="The current node timed out during startup."):
        self.times, self.message, self.started, self.stopped = times, message, 0, 0

    def is_initialized(self):
        return False

    def init(self, **_):
        self.started += 1
        if self.started <= self.times:
            raise Exception(self.message)  # the very class that Ray raises

    def shutdown(self):
        self.stopped += 1


def test_slow_ray_is_started_again(monkeypatch):
    slow = SlowRay(2)
    monkeypatch.setattr(connect, "ray", slow)
    monkeypatch.setattr(connect, "_begin", lambda watch: None)
    with connect.connected(None, Resources(), {}):
        assert slow.started == 3 and slow.stopped == 2


def test_ray_that_never_starts_is_one_line(monkeypatch):
    monkeypatch.setattr(connect, "ray", SlowRay(9))
    with pytest.raises(SweepFailed, match="did not start on this machine in 3 tries"), connect.connected(None, Resources(), {}):
        pass


def test_other_failures_of_ray_are_not_retried(monkeypatch):
    failing = SlowRay(9, "no such file")
    monkeypatch.setattr(connect, "ray", failing)
    with pytest.raises(Exception, match="no such file"), connect.connected(None, Resources(), {}):
        pass
    assert failing.started == 1


class ConnectedRay:
    """A Ray that this process has connected to itself, or as a task of a cluster."""

    WORKER_MODE = ray.WORKER_MODE

    def __init__(self, mode):
        self._private = SimpleNamespace(worker=SimpleNamespace(global_worker=SimpleNamespace(mode=mode)))

    def is_initialized(self):
        return True


@pytest.mark.parametrize("address", [None, "10.0.0.5:6379"])
def test_users_own_connection_is_refused(monkeypatch, address):
    for mode in (ray.SCRIPT_MODE, None):  # None: as Ray's client
        monkeypatch.setattr(connect, "ray", ConnectedRay(mode))
        with pytest.raises(InputError, match=r"ray\.shutdown\(\) first$"), connect.connected(address, Resources(), {}):
            pass


def test_task_of_a_cluster_uses_its_connection(monkeypatch):
    monkeypatch.setattr(connect, "ray", ConnectedRay(ray.WORKER_MODE))
    with connect.connected("auto", Resources(), {}):
        pass


def mismatch(**versions):
    """What Ray says to a cluster with other versions."""
    theirs = {"ray_version": ray.__version__, "python_version": platform.python_version(), **versions}
    with pytest.raises(RuntimeError) as raised:
        check_version_info(theirs, "Ray Client")
    return str(connect.unreachable("ray://head:10001", raised.value))


def test_other_versions_are_named_for_both_sides():
    ours = f"this command Ray {ray.__version__} and Python {platform.python_version()}; both sides need the same"
    said = mismatch(ray_version="2.40.0")
    assert said.startswith(
        f"--address ray://head:10001: the cluster has Ray 2.40.0 and Python {platform.python_version()}, {ours}"
    )
    assert f"the cluster has Ray {ray.__version__} and Python 3.9.1, {ours}" in mismatch(python_version="3.9.1")


def test_trace_of_a_server_behind_the_address_is_its_last_line():
    error = ConnectionAbortedError(
        "Initialization failure from server:\nTraceback (most recent call last):\n  File\nOSError: full\n"
    )
    assert str(connect.unreachable("ray://head:10001", error)).startswith(
        "--address ray://head:10001: no Ray cluster answers there: OSError: full"
    )


def test_oldest_ray_is_the_one_of_the_project():
    declared = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())["project"]["dependencies"]
    assert f"ray[tune]>={connect.MINIMUM}" in declared


def test_local_ray_listens_on_loopback_also_where_a_program_imported_ray_first():
    code = "import ray, orchestrator.cluster.connect as c; print(c.ray._private.services.get_node_ip_address())"
    told = {name: value for name, value in os.environ.items() if name != "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=told, cwd=ROOT)
    assert done.stdout.split() == ["127.0.0.1"]
