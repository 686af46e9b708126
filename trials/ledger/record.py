"""TrialRecord: what a trial leaves, and the ledger, the folder that keeps the records by key.

A record counts when `record.json` is whole: everything else of a trial is written before it. Reads need neither torch nor any
other of the trial's libraries.
"""

import io
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import pandas as pd
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from trials.errors import InputError
from trials.ledger import lease, storage
from trials.ledger.outcomes import Packed, pack
from trials.printable import one_line
from trials.spec import TrialSpec
from trials.yaml_file import dump

Key = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,199}$")]
"""A trial's key or a sweep's name: it names a folder, and never one elsewhere."""


@dataclass(slots=True)  # a record holds dozens, and a model of each takes a quarter longer to read
class Score:
    """What is known of a role: mean over `n` documents, or ratio of sums over them, and its standard error. A metric of lm-eval
    or a share is 0..1, bpb is in bits per byte, margin in nats per character."""

    value: float
    stderr: float
    n: int


class Failure(BaseModel):
    kind: str
    message: str
    traceback: str


class GivenUp(BaseModel):
    """A trial that was stopped early: the front beat it while it was evaluated. It has no record."""

    reason: str
    seconds: float = Field(ge=0, allow_inf_nan=False)
    """The time that its worker spent on it."""


class Halving(BaseModel):
    """Ran out of memory; the batch was halved."""

    phase: str
    """train, or evaluate.ROLE."""
    rows: int
    """Rows in memory at once from then on: the micro-batch, or the evaluation's batch."""


class TrialRecord(BaseModel):
    model_config = ConfigDict(extra="forbid")

    key: Key
    state: Literal["complete", "failed"]
    spec: TrialSpec
    scores: dict[str, Score] = {}
    """By role, in the role's metric and filter."""
    details: dict[str, dict[str, Score]] = {}
    """By role, then by "metric,filter" in lm-eval's names: all that the tasks measure, and what is measured beside it. Of a
    generated task: strict, flexible, marker, stopped (shares of the documents) and bpb, bits per byte of the gold solutions,
    with bpb.word, bpb.digit, bpb.operator, bpb.format and their parts (see trials/evaluation/decomposition.py); of a multiple
    choice: margin, and bpb of the gold endings."""
    halves: dict[str, dict[str, dict[str, Score]]] = {}
    """By role, then by half ("search", "report"; see trials/tasks/splits.py), then as in `details`; "score" is the role's own.
    A half that no document is in is left out."""
    outcomes: dict[str, Packed] = {}
    """By role: what each document came to, for comparisons between trials."""
    engine: dict[str, dict[str, str]] = {}
    """By role whose engine is `exact`, then by kind of request (log-likelihood; generation, and with it the bits of gold
    solutions): "exact", or "hflm" and why the engine stepped aside (see trials/evaluation/engine/verification.py); and how many
    prompts were longer than the model and lost their beginning."""
    parent: Key | None = None
    """The key of the trial whose adapter this one was derived from."""
    learning: dict[str, dict[str, float]] = {}
    """By source, on rows that are held out of every training: tokens; loss and base_loss (nats per token); kl, of the tuned
    model from the base KL(base || tuned), and reverse_kl, KL(tuned || base) (nats per token)."""
    similarity: dict[str, list[float]] = {}
    """By source, on the same rows: how alike the hidden states are to the base's, of the embeddings and then of each block
    (linear centred kernel alignment; see trials/drift/cka.py)."""
    kl: list[tuple[int, float]] = []
    """(step, kl on the held-out rows) as train.stop_kl looked at it."""
    overlap: dict[str, dict[str, int]] = {}
    """By source: rows that were looked at, and those of them that share 13 words with a test document and were left out."""
    left_out: dict[str, dict[str, int]] = {}
    """By source and reason: rows that were not trained on, of those up to the last one that was."""
    cut: dict[str, int] = {}
    """By source: rows that were trained on up to data.max_length, and are longer."""
    training: dict[str, float] = {}
    """rows, tokens, steps, final_loss (nats per token of the last step)."""
    together: int = 1
    """How many trials were trained in one pass, this one among them; its seconds of training are its share of that."""
    losses: list[tuple[int, float]] = []
    """(step, loss) as training logged them."""
    rows: dict[str, int] = {}
    """Training rows by source."""
    seconds: dict[str, Annotated[float, Field(ge=0, lt=1e12)]] = {}
    """By phase."""
    peak_memory: dict[str, int] = {}
    """Bytes: `host` is the process's largest resident set, `device` the accelerator's largest allocation."""
    memory: dict[str, dict[str, int]] = {}
    """The same by phase."""
    versions: dict[str, str] = {}
    git: str | None = None
    hardware: dict[str, Any] = {}
    host: str = ""
    """The name of the machine that ran it."""
    seeds: dict[str, int] = {}
    notes: list[str] = []
    """Layers of the base that stay in 16 bits or get no adapter, where a reader of the spec would not expect it."""
    base_checksum: str | None = None
    """sha256 over the base's weight files, or the hub's commit."""
    out_of_memory: list[Halving] = []
    """In the order in which it happened."""
    resumed: list[int] = []
    """The steps after which a later attempt went on with the training."""
    set_aside: list[str] = []
    """What an earlier attempt had left and could not be used, and why."""
    finished: str = ""
    """ISO 8601, UTC."""
    failure: Failure | None = None

    @model_validator(mode="after")
    def _whole(self) -> "TrialRecord":
        for role, halves in self.halves.items():
            if lacking := [half for half, named in halves.items() if "score" not in named]:
                raise ValueError(f"halves.{role}.{lacking[0]} has no score")
        for source, part in self.learning.items():
            if lacks := {"tokens", "loss", "base_loss", "kl", "reverse_kl"} - part.keys():
                raise ValueError(f"learning.{source} has no {', '.join(sorted(lacks))}")
        return self


class Ledger:
    """The records under one storage root (see `storage.root`), `ROOT/ledger/KEY/`."""

    def __init__(self, root: Path | str):
        self.root = storage.root(root) / "ledger"

    def folder(self, key: str) -> Path:
        return self.root / key

    def read(self, key: str) -> TrialRecord | None:
        """The record, or None where there is none; raises InputError when the file is there but is not a whole record."""
        path = self.folder(key) / "record.json"
        if storage.is_link(path.parent) or storage.is_link(path):
            raise InputError(f"{path}: behind a symbolic link; move that away and the trial runs again")
        try:
            record = TrialRecord.model_validate_json(storage.read_bytes(path))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except storage.NotAFile as error:
            raise InputError(f"{path}: {error.strerror}; move it away and the trial runs again") from None
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False, include_context=False)[0]
            reason = one_line(f"{'.'.join(map(str, first['loc']))}: {first['msg']}".removeprefix(": "))
            raise InputError(f"{path}: not a whole record ({reason[:120]}); move it away and the trial runs again") from None
        if record.key != key:
            raise InputError(f"{path}: holds the record of {record.key}; move it away and the trial runs again")
        return record

    def complete(self, key: str) -> TrialRecord | None:
        """The record if the trial is done; a failed one does not count."""
        record = self.read(key)
        return record if record is not None and record.state == "complete" else None

    def lease(self, key: str) -> lease.Lease | None:
        """The right to run this trial; None while somebody else has it. InputError where its folder is a symbolic link."""
        return lease.acquire(storage.refuse_link(self.folder(key)))

    def held(self, key: str) -> bool:
        """Whether somebody, here or elsewhere, has the right to run this trial."""
        return lease.held(self.folder(key))

    def reclaim(self, key: str) -> bool:
        """Whether nobody living works on it. The lease of a dead holder is ended, for somebody who meets it for the first time,
        on another machine, could not know for as long as a lease lasts."""
        lease = self.lease(key)
        if lease is None:
            return False
        lease.release()
        return True

    def set_aside(self, key: str) -> Path:
        """Renames a record that cannot be read, so that the trial runs again; returns where it now is.

        Of a folder that is a symbolic link the link is renamed: nothing behind it is touched.
        """
        folder = self.folder(key)
        return storage.set_aside(folder if storage.is_link(folder) else folder / "record.json")

    def __iter__(self) -> Iterator[str]:
        """The keys that have a record, sorted."""
        yield from storage.folders_with(self.root, "record.json")

    def documents(self, key: str, columns: Collection[str] | None = None) -> pd.DataFrame:
        """A row per document: role, task, doc_id, doc_hash, half, score, target, response, lm-eval's "metric,filter" columns,
        and what they are taken apart into (see trials/evaluation/decomposition.py); a baseline's also have question (with the
        choices, where there are) and cluster (see trials/tasks/splits.py). Of `columns` those that are there."""
        found = pq.ParquetFile(io.BytesIO(storage.read_bytes(self.folder(key) / "documents.parquet")))
        there = found.schema_arrow.names
        return found.read([name for name in there if columns is None or name in columns]).to_pandas(ignore_metadata=True)

    def write(self, record: TrialRecord, documents: pd.DataFrame | None = None, adapters: Collection[Path] = ()) -> None:
        """Adapters and documents first, the record last: where it stands, all of it stands.

        `adapters` are local folders and are moved to `KEY/` under their names. The record's outcomes are those of `documents`.
        """
        with storage.anchored(self.folder(record.key), 2) as folder:
            for adapter in adapters:
                storage.upload(adapter, folder / adapter.name)
            if documents is not None:
                record.outcomes = pack(documents, record.spec.is_baseline)
                storage.replace_file(folder / "documents.parquet", lambda path: documents.to_parquet(path, index=False))
            spec = dump(record.spec.model_dump(mode="json"))
            storage.write_text(folder / "spec.yaml", spec)
            storage.write_text(folder / "record.json", record.model_dump_json(indent=1) + "\n")
