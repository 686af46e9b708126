"""Trackers are checked before a sweep starts and never hold it up."""

import sys
import threading

import pytest

from orchestrator.sweep.events import Event
from orchestrator.trackers import registry
from trials.errors import InputError


@pytest.mark.parametrize(("name", "module"), [("tensorboard", "tensorboardX"), ("mlflow", "mlflow")])
def test_tracker_that_needs_a_local_folder_refuses_a_store(s3, monkeypatch, command, parts, write, name, module):
    monkeypatch.setitem(sys.modules, module, object())  # as if it were installed
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    ran = command("run", write(parts | {"trackers": [name]}), "--storage", f"{s3}/runs")
    assert ran.returncode == 2
    assert ran.stdout == ""
    assert ran.stderr.startswith(f"trackers: {name} writes to a folder of this machine, not to {s3}/runs/little")
    assert len(ran.stderr.splitlines()) == 1


@pytest.mark.parametrize(("name", "module"), [("tensorboard", "tensorboardX"), ("mlflow", "mlflow"), ("wandb", "wandb")])
def test_missing_package_is_one_line_with_its_extra(name, module, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)  # as Python itself marks a module that cannot be imported
    with pytest.raises(InputError) as found:
        registry.check([name], tmp_path)
    assert str(found.value) == f"trackers: {name} is not installed: pip install 'slimsweep[{name}]'"


class HangingTracker:
    name = "slow"

    def __init__(self) -> None:
        self.called, self.release = 0, threading.Event()

    def progress(self, event: Event) -> None:
        self.trial(event)

    def close(self) -> None:
        pass

    def trial(self, event: Event) -> None:
        self.called += 1
        self.release.wait(30)
        raise ConnectionError("no answer")


def test_failing_tracker_blocks_nothing_and_gets_no_more_events(events, capsys):
    tracker = HangingTracker()
    observer = registry.Background(tracker)
    for event in events * 3:  # returns while the first call is still waiting
        observer(event)
    tracker.release.set()
    observer.close()
    assert tracker.called == 1
    assert capsys.readouterr().err == "warning: tracker slow: no answer; it gets no more events of this sweep\n"


def test_hanging_tracker_does_not_block_the_end(events, capsys, monkeypatch):
    monkeypatch.setattr(registry, "PATIENCE", 0.05)
    tracker = HangingTracker()
    observer = registry.Background(tracker)
    for event in events:
        observer(event)
    observer.close()
    assert "tracker slow: does not answer" in capsys.readouterr().err
    tracker.release.set()


def test_slow_tracker_is_spared_progress_and_gets_every_end(events, monkeypatch):
    monkeypatch.setattr(registry, "_BEHIND", 3)

    class Slow:
        name = "slow"
        release, taken = threading.Event(), []

        def progress(self, event: Event) -> None:
            self.release.wait(30)
            self.taken.append(event.event)

        trial = progress

        def close(self) -> None:
            self.taken.append("closed")

    observer = registry.Background(Slow())
    for _ in range(50):
        observer(Event("trial_progress", "little", number=0, key="k"))
    for event in events:
        observer(event)
    Slow.release.set()
    observer.close()
    assert Slow.taken[-4:] == ["trial_finished", "trial_finished", "trial_failed", "closed"]
    assert Slow.taken.count("trial_progress") <= 4
