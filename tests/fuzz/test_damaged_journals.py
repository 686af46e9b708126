"""Damaged study journals and event logs: `run` mends them or says in one line what is wrong, and loses no record."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from optuna.storages.journal import JournalFileSymlinkLock

from orchestrator import finish
from orchestrator.search import driver_lease, study_storage
from orchestrator.sweep import controller
from tests import ready
from tests.factories.damage import BYTES, KINDS
from tests.fuzz import cases

Damage = Callable[[Path], None]
LINES: dict[str, Callable[[list[Any]], list[Any]]] = {  # of a journal's operations
    "op code": lambda lines: [*lines[:-1], lines[-1] | {"op_code": 99}],
    "no op code": lambda lines: [*lines, {"study_id": 0}],
    "twice": lambda lines: lines * 2,
    "first half": lambda lines: lines[: len(lines) // 2],
    "second half": lambda lines: lines[len(lines) // 2 :],
    "reversed": lambda lines: lines[::-1],
    "list": lambda lines: [*lines, [1, 2]],
    "null": lambda lines: [*lines, None],
    "other study": lambda lines: [line | {"study_id": 7} for line in lines],
    "other trial": lambda lines: [line | {"trial_id": 77} if "trial_id" in line else line for line in lines],
    "text values": lambda lines: [line | {"values": ["a"]} if "values" in line else line for line in lines],
    "no values": lambda lines: [line | {"values": None} if "values" in line else line for line in lines],
    "state": lambda lines: [line | {"state": 9} if "state" in line else line for line in lines],
    "parameters": lambda lines: [line | {"param_value_internal": 1e300} if "distribution" in line else line for line in lines],
    "distribution": lambda lines: [line | {"distribution": "{"} if "distribution" in line else line for line in lines],
    "attributes": lambda lines: [line | {"user_attr": {"key": [1]}} if "user_attr" in line else line for line in lines],
    "directions": lambda lines: [line | {"directions": [1, 1]} if "directions" in line else line for line in lines],
    "name": lambda lines: [line | {"study_name": "other"} if "study_name" in line else line for line in lines],
}


def _bytes(name: str, change: Callable[[bytes], bytes]) -> Damage:
    def damage(sweep: Path) -> None:
        (sweep / name).write_bytes(change((sweep / name).read_bytes()))

    return damage


def _other(name: str, make: Callable[[Path], object]) -> Damage:
    def damage(sweep: Path) -> None:
        (sweep / name).unlink(missing_ok=True)
        make(sweep / name)

    return damage


def _lines(change: Callable[[list[Any]], list[Any]]) -> Damage:
    def damage(sweep: Path) -> None:
        path = sweep / "study.journal"
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        path.write_text("".join(json.dumps(line) + "\n" for line in change(lines)))

    return damage


def _gone_behind_its_lock(sweep: Path) -> None:
    (sweep / "study.journal.lock").symlink_to(sweep / "study.journal")
    (sweep / "study.journal").unlink()


def _damages() -> Iterator[tuple[str, Damage]]:
    for name in ("study.journal", "events.jsonl"):
        yield from ((f"{name} {kind}", _bytes(name, change)) for kind, change in BYTES.items())
        yield from ((f"{name} {kind}", _other(name, make)) for kind, make in KINDS.items())
    yield from ((f"study.journal.lock {kind}", _other("study.journal.lock", make)) for kind, make in KINDS.items())
    yield "lock of a journal that is gone", _gone_behind_its_lock
    yield from ((f"journal {kind}", _lines(change)) for kind, change in LINES.items())


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished sweep whose study is a journal."""
    storage = tmp_path_factory.mktemp("whole")
    ready.build(ready.config(study="journal"), storage)
    (storage / "little" / "events.jsonl").write_text('{"event": "sweep_started"}\n')
    return storage


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trials that no driver signed are taken over without a minute's wait, and nobody waits for a report."""
    monkeypatch.setattr(study_storage, "_LOCK_SECONDS", 0.0)
    monkeypatch.setattr(JournalFileSymlinkLock.__init__, "__defaults__", (3,))  # Optuna waits 30 seconds for a lock's owner
    monkeypatch.setattr(driver_lease, "_UNSIGNED", 0.0)
    monkeypatch.setattr(driver_lease, "_POLL", 0.0)
    monkeypatch.setattr(controller, "_POLL", 0.0)
    monkeypatch.setattr(finish, "finish", lambda *_: {"front": [], "files": [], "complete": 1, "failed": 0})  # reads no journal


@pytest.mark.parametrize("damage", cases(_damages(), every=5))
def test_damaged_journal_is_mended_or_one_line(damage, whole, tmp_path, command, write, quick, at_once, patience):
    storage = tmp_path / "runs"
    shutil.copytree(whole, storage)
    damage(storage / "little")
    records = {path: path.read_bytes() for path in storage.glob("ledger/*/record.json")}
    config = write(ready.CONFIG | {"search": ready.CONFIG["search"] | {"study": "journal"}})
    done = command("run", config, "--storage", storage, "--events", storage / "little" / "events.jsonl")
    assert "Traceback" not in done.stderr + done.stdout
    assert done.returncode in (0, 2), done.stderr
    assert done.returncode == 0 or len(done.stderr.splitlines()) == 1, done.stderr
    assert records == {path: path.read_bytes() for path in records}
