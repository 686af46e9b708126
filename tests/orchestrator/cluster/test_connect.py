"""A local Ray: started again where it was too slow, and otherwise a line that says what to do."""

import pytest

from orchestrator.cluster import connect
from orchestrator.config.model import Resources
from orchestrator.errors import SweepFailed


class SlowRay:
    """Refuses to start so many times, as Ray does on a busy machine."""

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


def test_a_ray_that_was_too_slow_is_started_again(monkeypatch):
    ray = SlowRay(2)
    monkeypatch.setattr(connect, "ray", ray)
    monkeypatch.setattr(connect, "_begin", lambda watch: None)
    with connect.connected(None, Resources(), {}):
        assert ray.started == 3 and ray.stopped == 2


def test_a_ray_that_never_starts_is_one_line(monkeypatch):
    monkeypatch.setattr(connect, "ray", SlowRay(9))
    with pytest.raises(SweepFailed, match="did not start on this machine in 3 tries"), connect.connected(None, Resources(), {}):
        pass


def test_another_failure_of_ray_is_not_tried_again(monkeypatch):
    ray = SlowRay(9, "no such file")
    monkeypatch.setattr(connect, "ray", ray)
    with pytest.raises(Exception, match="no such file"), connect.connected(None, Resources(), {}):
        pass
    assert ray.started == 1


def test_tune_copies_no_key_of_a_store_to_where_ray_logs_it(monkeypatch):
    from ray.tune.execution.class_cache import _ActorClassCache

    from orchestrator.cluster import runner  # noqa: F401

    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret-of-a-test")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "secret-of-a-test")
    actor = _ActorClassCache().get(type("Trainable", (), {}))
    assert "secret-of-a-test" not in str(actor._default_options)
