"""A local Ray is started again where it was too slow; otherwise one line says what to do."""

import pytest

from orchestrator.cluster import connect
from orchestrator.config.model import Resources
from orchestrator.errors import SweepFailed


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
    ray = SlowRay(2)
    monkeypatch.setattr(connect, "ray", ray)
    monkeypatch.setattr(connect, "_begin", lambda watch: None)
    with connect.connected(None, Resources(), {}):
        assert ray.started == 3 and ray.stopped == 2


def test_ray_that_never_starts_is_one_line(monkeypatch):
    monkeypatch.setattr(connect, "ray", SlowRay(9))
    with pytest.raises(SweepFailed, match="did not start on this machine in 3 tries"), connect.connected(None, Resources(), {}):
        pass


def test_other_failures_of_ray_are_not_retried(monkeypatch):
    ray = SlowRay(9, "no such file")
    monkeypatch.setattr(connect, "ray", ray)
    with pytest.raises(Exception, match="no such file"), connect.connected(None, Resources(), {}):
        pass
    assert ray.started == 1
