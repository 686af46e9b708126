"""The events that trackers record, and a sweep that emits them."""

from dataclasses import replace

import pytest

from orchestrator.sweep.events import Event, Observers
from orchestrator.trackers import registry
from trials.ledger.record import TrialRecord
from trials.ledger.trial_progress import TrialProgress

METRICS = {"commonsense.gain": 0.02, "math.forgetting": None}


@pytest.fixture
def events(spec) -> list[Event]:
    """A baseline, a finished trial with losses, a failed one."""
    record = TrialRecord(key=spec.key, state="complete", spec=spec, losses=[(1, 3.0), (2, 2.5)])
    settings = {"lora.rank": 4, "data.mix.micro/gsm8k": 0.5}
    seconds = {"train": 2.0, "evaluate.math": 1.0}
    failure = {"kind": "NonFiniteLoss", "message": "the loss was nan"}
    return [
        Event("sweep_started", "little"),
        Event("trial_finished", "little", key="base", metrics={"commonsense.value": 0.5}, seconds=seconds),
        Event("trial_started", "little", number=0, key=spec.key, settings=settings),
        Event(
            "trial_finished",
            "little",
            "2026-01-02T03:04:05.000+00:00",
            0,
            spec.key,
            0,
            settings,
            METRICS,
            seconds,
            record=record,
        ),
        Event("trial_failed", "little", number=1, key="bad", replicate=2, settings={"lora.rank": 8}, failure=failure),
    ]


@pytest.fixture
def record(events):
    """Runs the tracker NAME on the events, with `folder` as the sweep's folder."""

    def run(name: str, folder) -> None:
        observers = Observers(registry.make([name], "little", folder))
        for event in events:
            observers(event)
        observers.close()

    return run


@pytest.fixture
def going_on(events):
    """An event of trial 0 while it runs, with these steps."""

    def at(*steps: int, **fields) -> Event:
        losses = [(step, 4.0 - step) for step in steps]
        now = TrialProgress(key=events[3].key, phase="train", step=steps[-1], steps=2, tokens_per_second=50.0, losses=losses)
        return replace(events[2], event="trial_progress", progress=now, **fields)

    return at
