"""Fixtures of the fuzzes: commands without Ray, and an end to what hangs."""

import signal
from collections.abc import Iterator
from contextlib import nullcontext

import pytest

from tests import ready


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    from analysis.report import build
    from orchestrator import run
    from orchestrator.cluster import prefetch, runner

    monkeypatch.setattr(run, "_ray_and_checked_inputs", lambda *_: nullcontext())
    monkeypatch.setattr(prefetch, "prestage", lambda *_: None)
    monkeypatch.setattr(runner, "Slots", lambda *_: "one at a time")
    monkeypatch.setattr(runner, "run", ready.run)
    monkeypatch.setattr(build, "FIGURES", {})  # which take seconds, and hold nothing that the tables do not


@pytest.fixture
def patience() -> Iterator[None]:
    """Ends a test that waits for something that never comes."""

    def late(*_: object) -> None:
        raise AssertionError("it hangs")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(60)  # a busy machine needs ten times what an idle one does
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)
