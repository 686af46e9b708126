"""TrialRecord: what a trial leaves, and the ledger, the folder that keeps the records by key.

A record counts when `record.json` is whole: everything else of a trial is written before it, and it is written beside its
place, flushed and renamed. Reads need neither torch nor any other of the trial's libraries.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from trials.errors import InputError
from trials.spec import TrialSpec


class Score(BaseModel):
    """A role's result: mean over `n` documents and its standard error, both 0..1."""

    value: float
    stderr: float
    n: int


class Failure(BaseModel):
    kind: str
    message: str
    traceback: str


class TrialRecord(BaseModel):
    model_config = ConfigDict(extra="forbid")

    key: str
    state: Literal["complete", "failed"]
    spec: TrialSpec
    scores: dict[str, Score] = {}
    """By role, in the role's metric and filter."""
    details: dict[str, dict[str, Score]] = {}
    """By role, then by "metric,filter" in lm-eval's names: everything that the tasks measure."""
    training: dict[str, float] = {}
    """rows, tokens, steps, final_loss (nats per token of the last step)."""
    losses: list[tuple[int, float]] = []
    """(step, loss) as training logged them."""
    rows: dict[str, int] = {}
    """Training rows by source."""
    seconds: dict[str, float] = {}
    """By phase."""
    peak_memory: dict[str, int] = {}
    """Bytes: `host` is the process's largest resident set so far, `device` the accelerator's."""
    versions: dict[str, str] = {}
    git: str | None = None
    hardware: dict[str, Any] = {}
    seeds: dict[str, int] = {}
    base_checksum: str | None = None
    """sha256 over the base's weight files, or the hub's commit."""
    finished: str = ""
    """ISO 8601, UTC."""
    failure: Failure | None = None


class Ledger:
    """The records under one storage root, `ROOT/ledger/KEY/`."""

    def __init__(self, storage: Path | str):
        self.root = Path(storage) / "ledger"

    def folder(self, key: str) -> Path:
        return self.root / key

    def read(self, key: str) -> TrialRecord | None:
        """The record, or None where there is none; raises InputError when the file is there but is not a whole record."""
        path = self.folder(key) / "record.json"
        try:
            record = TrialRecord.model_validate_json(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (ValidationError, UnicodeDecodeError) as error:
            first = str(error).splitlines()[-2].strip() if len(str(error).splitlines()) > 1 else str(error)
            raise InputError(f"{path}: not a whole record ({first[:120]}); move it away and the trial runs again") from None
        if record.key != key:
            raise InputError(f"{path}: holds the record of {record.key}; move it away and the trial runs again")
        return record

    def complete(self, key: str) -> TrialRecord | None:
        """The record if the trial is done; a failed one does not count."""
        record = self.read(key)
        return record if record is not None and record.state == "complete" else None

    def __iter__(self) -> Iterator[str]:
        """The keys that have a record."""
        if self.root.is_dir():
            yield from sorted(path.parent.name for path in self.root.glob("*/record.json"))

    def documents(self, key: str, columns: list[str] | None = None) -> pd.DataFrame:
        """A row per document: role, task, doc_id, doc_hash, score, target, response, and lm-eval's "metric,filter" columns."""
        return pd.read_parquet(self.folder(key) / "documents.parquet", columns=columns)

    def write(self, record: TrialRecord, documents: pd.DataFrame | None = None, adapter: Path | None = None) -> None:
        """Adapter and documents first, the record last: where it stands, all of it stands."""
        folder = self.folder(record.key)
        folder.mkdir(parents=True, exist_ok=True)
        if adapter is not None:
            shutil.rmtree(folder / "adapter", ignore_errors=True)
            adapter.replace(folder / "adapter")
        if documents is not None:
            replace_file(folder / "documents.parquet", lambda path: documents.to_parquet(path, index=False))
        spec = yaml.safe_dump(record.spec.model_dump(mode="json"), sort_keys=False)
        write_text(folder / "spec.yaml", spec)
        write_text(folder / "record.json", record.model_dump_json(indent=1) + "\n")


def write_text(path: Path, text: str) -> None:
    """Writes so that no reader ever meets half a file."""
    replace_file(path, lambda partial: partial.write_text(text, encoding="utf-8"))


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=1, allow_nan=False) + "\n")


def replace_file(path: Path, write: Callable[[Path], Any]) -> None:
    """Lets `write` fill a file beside the final place, flushes it to the disk and renames it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    partial = Path(name)
    try:
        write(partial)
        with partial.open("rb") as written:
            os.fsync(written.fileno())
        partial.chmod(0o644)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
