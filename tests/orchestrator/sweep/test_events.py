"""Events reach every observer, whatever another one does, and the log as complete lines of JSON."""

import json
import math
from pathlib import Path

import pytest

from orchestrator.sweep.events import Event, EventLog, Observers
from trials.errors import InputError
from trials.ledger.record import TrialRecord

FINISHED = {
    "number": 3,
    "key": "0123456789abcdef",
    "settings": {"data.mix.micro/gsm8k": 0.5},
    "metrics": {"commonsense.gain": 0.02, "math.forgetting": None},
    "seconds": {"train": 1.5},
}


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_each_kind_of_event_has_its_fields_only():
    common = {"event", "time", "sweep"}
    trial = common | {"number", "key", "replicate", "settings"}
    expected = {
        "sweep_started": common,
        "trial_started": trial,
        "trial_progress": trial | {"progress"},
        "trial_finished": trial | {"metrics", "seconds"},
        "trial_failed": trial | {"failure", "seconds"},
        "front_changed": common | {"front"},
        "sweep_finished": common | {"reason"},
    }
    assert {kind: set(Event(kind, "s").as_dict()) for kind in expected} == expected


def test_event_is_one_line_of_json_at_once_and_nan_is_null(tmp_path):
    log = EventLog(tmp_path / "events.jsonl")
    log(Event("trial_finished", "s", **(FINISHED | {"metrics": {"commonsense.gain": math.nan, "math.drop": math.inf}})))
    (only,) = lines(tmp_path / "events.jsonl")  # the log is still open
    assert only["metrics"] == {"commonsense.gain": None, "math.drop": None}
    assert only["settings"] == FINISHED["settings"]
    assert only["time"].endswith("+00:00")


def test_record_is_not_logged(spec):
    record = TrialRecord(key=spec.key, state="complete", spec=spec)
    assert "record" not in Event("trial_finished", "s", record=record, **FINISHED).as_dict()


def test_resumed_sweep_appends_after_an_incomplete_line(tmp_path):
    path = tmp_path / "events.jsonl"
    first = EventLog(path)
    first(Event("sweep_started", "s"))
    first.close()
    with path.open("a") as cut_off:
        cut_off.write('{"event": "trial_st')
    again = EventLog(path)
    again(Event("sweep_finished", "s", reason="all trials are done"))
    whole = path.read_text().splitlines()
    assert [json.loads(line)["event"] for line in (whole[0], whole[2])] == ["sweep_started", "sweep_finished"]


def test_unwritable_file_is_refused_at_once(tmp_path):
    with pytest.raises(InputError, match=r"--events .*nowhere.*: No such file"):
        EventLog(tmp_path / "nowhere" / "events.jsonl")
    with pytest.raises(InputError, match="Is a directory"):
        EventLog(tmp_path)


def test_failing_observer_gets_no_more_events_and_the_others_all(capsys):
    heard, broken = [], []

    def breaks(event: Event) -> None:
        broken.append(event)
        raise ConnectionError("the server is down\nwith a long story")

    observers = Observers([breaks, heard.append])
    for kind in ("sweep_started", "trial_started", "sweep_finished"):
        observers(Event(kind, "s"))
    assert len(heard) == 3
    assert len(broken) == 1
    warnings = capsys.readouterr().err.splitlines()
    assert len(warnings) == 1
    assert warnings[0].startswith("warning:")
    assert "the server is down" in warnings[0]


def test_close_closes_every_observer(tmp_path):
    log = EventLog(tmp_path / "events.jsonl")
    observers = Observers([log])
    observers(Event("sweep_started", "s"))
    observers.close()
    observers(Event("sweep_finished", "s"))
    assert len(lines(tmp_path / "events.jsonl")) == 1
    with pytest.raises(OSError, match="Bad file descriptor"):
        log(Event("sweep_finished", "s"))
