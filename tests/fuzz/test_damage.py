"""Damaged and foreign storage: every command answers with its result or with one line, and loses nothing."""

import itertools
import json
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests import ready
from tests.factories.damage import BYTES, DEEP, HUGE, KINDS
from tests.fuzz import cases

Damage = Callable[[Path], None]
FILES = ("manifest.json", "sweep.yaml", "study.db", "record.json", "baseline.json", "documents.parquet", "spec.yaml")


IN_THE_WAY = ("lease.1.json", "lease.7.json", "lease.007.json", "lease.٠٠٧.json", "lease.1e3.json", "lease. 7.json", ".driver")


def _file(sweep: Path, name: str) -> Path:
    """The file of the sweep, or of its last trial's record, or its baseline's record."""
    if (sweep / name).exists():
        return sweep / name
    trials = json.loads((sweep / "manifest.json").read_text())["trials"]
    key = trials[-1]["baseline" if name == "baseline.json" else "key"]
    return sweep.parent / "ledger" / key / name.replace("baseline.json", "record.json")


def _bytes(name: str, change: Callable[[bytes], bytes]) -> Damage:
    def damage(sweep: Path) -> None:
        path = _file(sweep, name)
        path.write_bytes(change(path.read_bytes()))

    return damage


def _other(name: str, make: Callable[[Path], object]) -> Damage:
    def damage(sweep: Path) -> None:
        path = _file(sweep, name)
        path.unlink()
        make(path)

    return damage


def _new(name: str, make: Callable[[Path], object]) -> Damage:
    """A file that is in the way of one that the commands write or lock."""
    return lambda sweep: make(_file(sweep, "record.json").parent / name if name.startswith("lease") else sweep / name)


def _gone(name: str) -> Damage:
    return lambda sweep: _file(sweep, name).unlink()


# ---------------------------------------------------------------------- values in JSON

ODD: dict[str, Any] = {
    "null": None,
    "text": "x\0\x1b[31m[/b]",
    "nan": float("nan"),
    "inf": float("inf"),
    "negative": -7,
    "huge": HUGE,
    "list": [1, "a", None],
    "map": {"a": {"b": None}},
    "deep": DEEP,
    "true": True,
}
MANIFEST = ("schema", "name", "objectives", "constraints", "space", "trials", "spent", "baselines", "budget", "documents")
TRIAL = ("number", "key", "keys", "baseline", "params", "failure", "free", "given_up")
RECORD = (
    *("key", "state", "spec", "scores", "details", "halves", "outcomes", "parent", "learning", "similarity", "kl", "overlap"),
    *("training", "together", "losses", "rows", "seconds", "peak_memory", "memory", "versions", "hardware", "host", "seeds"),
    *("out_of_memory", "resumed", "set_aside", "finished", "failure"),
)
INSIDE: dict[str, Any] = {  # of a record: what is of the right shape and holds an odd thing
    "scores": {"": {"value": 0.5, "stderr": 0.1, "n": 1}},
    "details": {"math": {"x": {"value": 1e308, "stderr": -1.0, "n": -3}}},
    "halves": {"math": {"report": {}}, "commonsense": {"search": {}}},
    "outcomes": {"math": {"documents": "x", "n": 24, "columns": {"score": "b:AAAA", "half": "z:", "cluster": ""}}},
    "learning": {"alpaca": {}},
    "similarity": {"alpaca": []},
    "training": {"rows": -1.0, "final_loss": 1e308},
    "losses": [[0, 1.0], [0, -1e308], [10**18, 1e308]],
    "kl": [[5, 1e300], [5, 1e300]],
    "rows": {"\u202e[/b]": 10**18},
    "seconds": {"train": 1e308, "evaluate": 1e308},
    "peak_memory": {"host": 10**30},
    "memory": {"train": {"host": -1}},
    "versions": {"[/b]\x1b[2J": "=cmd|' /C calc'!A0"},
    "hardware": {"gpu": ["a"], "threads": "many", "cpu": {"x": 1}},
    "finished": "yesterday",
}


def _json(name: str, change: Callable[[Any], Any]) -> Damage:
    def damage(sweep: Path) -> None:
        path = _file(sweep, name)
        path.write_text(json.dumps(change(json.loads(path.read_text()))))

    return damage


def _value(name: str, field: str, value: Any) -> Damage:
    return _json(name, lambda whole: whole | {field: value})


def _trial(field: str, value: Any) -> Damage:
    def change(whole: Any) -> Any:
        whole["trials"][-1][field] = value
        return whole

    return _json("manifest.json", change)


def _doubled(whole: Any) -> Any:
    return whole | {"trials": whole["trials"] * 2, "objectives": whole["objectives"] * 2, "space": whole["space"] * 2}


def _settings(value: Any) -> Damage:
    return _trial("params", {"lora.rank": value, "nowhere.\x1b[31m": value})


# ---------------------------------------------------------------------- the study

SQL = {
    "other tables": "DROP TABLE trials; CREATE TABLE moz_places (id INTEGER)",
    "no tables": "PRAGMA writable_schema=1; DELETE FROM sqlite_master; PRAGMA writable_schema=0; VACUUM",
    "schema": "UPDATE version_info SET schema_version = 99",
    "no version": "DELETE FROM version_info",
    "alembic": "UPDATE alembic_version SET version_num = 'v9.9'",
    "no alembic": "DROP TABLE alembic_version",
    "no values": "DELETE FROM trial_values",
    "null values": "UPDATE trial_values SET value = NULL",
    "text values": "UPDATE trial_values SET value = 'abc'",
    "state": "UPDATE trials SET state = 'DANCING'",
    "null state": "PRAGMA writable_schema=1; UPDATE trials SET number = NULL",
    "numbers": "UPDATE trials SET number = 7",
    "dates": "UPDATE trials SET datetime_start = 'x', datetime_complete = 'y'",
    "params": "UPDATE trial_params SET param_value = 1e300",
    "no params": "DELETE FROM trial_params",
    "distribution": "UPDATE trial_params SET distribution_json = '{'",
    "other distribution": """UPDATE trial_params SET distribution_json = '{"name": "Nope", "attributes": {}}'""",
    "user attributes": "UPDATE trial_user_attributes SET value_json = '{'",
    "attribute types": "UPDATE trial_user_attributes SET value_json = '[1]'",
    "no attributes": "DELETE FROM trial_user_attributes",
    "study attributes": "UPDATE study_user_attributes SET value_json = '[[]]'",
    "system attributes": "UPDATE study_system_attributes SET value_json = 'x'",
    "trial system": "UPDATE trial_system_attributes SET value_json = 'null'",
    "directions": "UPDATE study_directions SET direction = 'MAXIMIZE'",
    "no directions": "DELETE FROM study_directions",
    "name": "UPDATE studies SET study_name = 'other'",
    "no study": "DELETE FROM studies",
    "running": "UPDATE trials SET state = 'RUNNING'",
    "waiting": "UPDATE trials SET state = 'WAITING'",
}


def _sql(script: str) -> Damage:
    def damage(sweep: Path) -> None:
        connection = sqlite3.connect(sweep / "study.db")
        connection.executescript(script)
        connection.close()

    return damage


# ---------------------------------------------------------------------- the commands

READERS: dict[str, tuple[str, ...]] = {
    "status": ("status", "{sweep}"),
    "status-json": ("status", "{sweep}", "--json"),
    "front": ("front", "{sweep}", "--format", "csv,json,parquet,html,svg,tex,md", "--trials"),
    "report": ("report", "{sweep}"),
    "publish": ("publish", "{sweep}", "#99"),
    "compare": ("compare", "{sweep}", "{other}", "--to", "{out}"),
    "compared": ("compare", "{other}", "{sweep}", "--to", "{out}", "--json"),
    "plan": ("plan", "{config}", "--storage", "{storage}"),
    "plan-json": ("plan", "{config}", "--storage", "{storage}", "--json"),
}


def _damages() -> Iterator[tuple[str, Damage]]:
    for name in FILES:
        yield from ((f"{name} {kind}", _bytes(name, change)) for kind, change in BYTES.items())
        yield from ((f"{name} {kind}", _other(name, make)) for kind, make in KINDS.items())
        yield f"{name} gone", _gone(name)
    for name in IN_THE_WAY:
        yield from ((f"{name} {kind}", _new(name, make)) for kind, make in KINDS.items() if "link" not in kind)
    yield from ((f"settings {kind}", _settings(value)) for kind, value in ODD.items())
    odd = itertools.cycle(ODD.items())  # ten of them, and three a field: each field has others
    for make, fields in (
        (partial(_value, "manifest.json"), MANIFEST),
        (_trial, TRIAL),
        (partial(_value, "record.json"), RECORD),
    ):
        for field in fields:
            yield from ((f"{field} {kind} {fields[0]}", make(field, value)) for kind, value in itertools.islice(odd, 3))
    yield "manifest doubled", _json("manifest.json", _doubled)
    yield from ((f"record inside {field}", _value("record.json", field, value)) for field, value in INSIDE.items())
    yield from ((f"baseline inside {field}", _value("baseline.json", field, value)) for field, value in INSIDE.items())
    yield from ((f"study {kind}", _sql(script)) for kind, script in SQL.items())


def _combinations() -> Iterator[tuple[str, tuple[Damage, str]]]:
    names = [*READERS, "run"]  # 11 of them, and each damage meets two
    for place, (kind, damage) in enumerate(_damages()):
        if kind.startswith("study"):
            yield f"{kind}: run", (damage, "run")
        else:
            for name in (names[place % len(names)], names[(place + 4) % len(names)]):
                yield f"{kind}: {name}", (damage, name)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two finished sweeps."""
    storage = tmp_path_factory.mktemp("whole")
    ready.build(ready.config(), storage)
    ready.build(ready.config().model_copy(update={"name": "other"}), storage)
    return storage


@pytest.mark.parametrize("case", cases(_combinations()))
def test_damaged_storage_is_one_line_or_mended(case, whole, tmp_path, command, write, quick, patience):
    damage, name = case
    storage = tmp_path / "runs"
    shutil.copytree(whole, storage)
    sweep = storage / "little"
    damage(sweep)
    untouched = {path: path.read_bytes() for path in (storage / "other").iterdir() if path.name != "front.json"}
    line = READERS[name] if name != "run" else ("run", "{config}", "--storage", "{storage}")
    places = {"sweep": sweep, "other": storage / "other", "out": tmp_path / "out", "storage": storage}
    places["config"] = write(ready.CONFIG)
    done = command(*(part.format(**places) for part in line))
    assert "Traceback" not in done.stderr + done.stdout
    assert "\x1b" not in done.stderr + done.stdout
    if name == "run":
        assert done.returncode == 0, done.stderr
    else:
        assert done.returncode in (0, 2)
        assert done.returncode == 0 or len(done.stderr.splitlines()) == 1, done.stderr
    assert untouched == {path: path.read_bytes() for path in untouched}
