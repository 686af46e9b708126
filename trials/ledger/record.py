"""TrialRecord, the result of a trial, and Ledger, the folder that keeps the records by key."""

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
from trials.ledger.outcomes import SHARES_SCALE, Packed, Scale, pack
from trials.printable import one_line
from trials.spec import TrialSpec
from trials.yaml_file import dump

NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,199}$"
Key = Annotated[str, Field(pattern=NAME)]
"""A trial's key or a sweep's name. It names a folder and cannot lead out of the parent folder."""
IMPORTED = "lmeval-"
"""How the key of an imported record begins. A trial's key has hexadecimal digits alone, so the two cannot be equal."""


@dataclass(slots=True)  # a record holds dozens; as pydantic models they take a quarter longer to read
class Score:
    """A mean over `n` documents, or a ratio of sums over them, and its standard error. Metrics of lm-eval and shares are 0..1,
    bpb is in bits per byte, margin in nats per character."""

    value: float
    stderr: float
    n: int


class Failure(BaseModel):
    kind: str
    message: str
    traceback: str


class GivenUp(BaseModel):
    """A trial that was stopped early: the front beat it while it was evaluated, or its first looks promised too little. It has
    no record."""

    reason: str
    seconds: float = Field(ge=0, allow_inf_nan=False)
    """The time that its worker spent on it."""
    chance: Annotated[float, Field(ge=0, le=1)] | None = None
    """Its probability to be on the front, where search.multi_fidelity stopped it."""


class Imported(BaseModel):
    """Where the results of a record come from that lm-eval's command line measured."""

    model: str
    """The evaluated model's name, as lm-eval wrote it."""
    arguments: dict[str, str] = {}
    """lm-eval's arguments of the model, without secrets."""
    dtype: str | None = None
    """The type that the weights had."""
    tasks: dict[str, dict[str, Any]] = {}
    """By task: the settings on which its outcomes depend beside the prompts (see trials/imported/folder.py)."""
    files: dict[str, str] = {}
    """By task: its file of samples."""


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
    """By role: the role's metric and filter."""
    details: dict[str, dict[str, Score]] = {}
    """By role, then by "metric,filter" in lm-eval's names: the metrics of the tasks that are means, and more. A generated task
    adds strict, flexible, marker, stopped (shares of the documents) and bpb, bits per byte of the gold solutions, with
    bpb.word, bpb.digit, bpb.operator, bpb.format and their parts (see trials/evaluation/decomposition.py). Multiple choice adds
    margin, and bpb of the gold endings."""
    halves: dict[str, dict[str, dict[str, Score]]] = {}
    """By role, then by half ("search", "report"; see trials/tasks/splits.py), then as in `details`; "score" is the role's.
    Empty halves are left out."""
    outcomes: dict[str, Packed] = {}
    """By role: the outcome of each document, for paired comparisons of trials."""
    scales: dict[str, Scale] = {}
    """By role; a role without one has a mean of shares that is better when higher."""
    engine: dict[str, dict[str, str]] = {}
    """By role whose engine is `exact`, then by kind of request (log-likelihood; generation, with the bits of gold solutions):
    "exact", or "hflm" and the reason for the fallback (see trials/evaluation/engine/verification.py); and the number of prompts
    that were truncated at their beginning because they exceeded the model's length."""
    parent: Key | None = None
    """The key of the trial whose adapter this one was derived from."""
    learning: dict[str, dict[str, float]] = {}
    """By source, on rows held out of every training: tokens; in nats per token loss and base_loss, kl, KL(base || tuned), and
    reverse_kl, KL(tuned || base)."""
    similarity: dict[str, list[float]] = {}
    """By source, on the same rows: similarity of the hidden states to the base's, of the embeddings and then of each block
    (linear centred kernel alignment; see trials/drift/cka.py)."""
    kl: list[tuple[int, float]] = []
    """(step, kl on the held-out rows) at each check of train.stop_kl."""
    overlap: dict[str, dict[str, int]] = {}
    """By source: rows that were screened, and rows left out for 13 words in common with a test document."""
    left_out: dict[str, dict[str, int]] = {}
    """By source and reason: rows left out, up to the last row that was trained on."""
    unused: dict[str, dict[str, list[str]]] = {}
    """By source and reason: file and row of the first three rows left out."""
    unusual: dict[str, dict[str, tuple[int, str]]] = {}
    """By source and by what is unusual in a conversation: number of rows trained on, file and row of the first."""
    cut: dict[str, int] = {}
    """By source: rows truncated to data.max_length."""
    cut_tokens: dict[str, int] = {}
    """By source: tokens with a label that this removed."""
    duplicates: dict[str, int] = {}
    """By source: rows that are copies of an earlier one."""
    formats: dict[str, str] = {}
    """By source without templates of its own: its format and the columns that show it."""
    training: dict[str, float] = {}
    """rows, tokens, steps, final_loss (nats per token of the last step)."""
    together: int = 1
    """Number of trials trained in the same pass, this one included. Its seconds of training are its share of that pass."""
    losses: list[tuple[int, float]] = []
    """(step, loss) as logged by the training."""
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
    """The machine's name."""
    seeds: dict[str, int] = {}
    notes: list[str] = []
    """Layers of the base that stay in 16 bits or get no adapter, unlike the spec suggests; why training rows are not packed."""
    base_checksum: str | None = None
    """sha256 over the base's weight files, or the hub's commit."""
    out_of_memory: list[Halving] = []
    """Chronological."""
    resumed: list[int] = []
    """The steps from which a later attempt resumed the training."""
    set_aside: list[str] = []
    """Unusable checkpoints of earlier attempts, with the reason."""
    imported: Imported | None = None
    """Set where others measured it. `spec` then holds the base and the evaluation; nothing is known of the training."""
    finished: str = ""
    """ISO 8601, UTC."""
    failure: Failure | None = None

    @model_validator(mode="after")
    def _whole(self) -> "TrialRecord":
        for role in (*self.scores, *self.details, *self.halves):
            if not role.isidentifier():
                raise ValueError(f"a role is a plain word, but got {role!r}")
        for role, halves in self.halves.items():
            if lacking := [half for half, named in halves.items() if "score" not in named]:
                raise ValueError(f"halves.{role}.{lacking[0]} has no score")
        for source, part in self.learning.items():
            if lacks := {"tokens", "loss", "base_loss", "kl", "reverse_kl"} - part.keys():
                raise ValueError(f"learning.{source} has no {', '.join(sorted(lacks))}")
        return self

    def scale(self, role: str) -> Scale:
        return self.scales.get(role, SHARES_SCALE)


class Ledger:
    """The records under one storage root (see `storage.root`), `ROOT/ledger/KEY/`."""

    def __init__(self, root: Path | str):
        self.root = storage.root(root) / "ledger"

    def folder(self, key: str) -> Path:
        return self.root / key

    def read(self, key: str) -> TrialRecord | None:
        """The record, or None where there is none. Raises InputError for a file that is no whole record."""
        path = self.folder(key) / "record.json"
        # others may be able to write to the storage: a link could have this process read a file that only its user may
        if storage.is_link(path.parent) or storage.is_link(path):
            raise InputError(f"{path}: behind a symbolic link; move that away and the trial runs again")
        try:
            record = TrialRecord.model_validate_json(storage.read_bytes(path))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except storage.NotAFile as error:
            raise InputError(f"{path}: {error.strerror}; move it away and the trial runs again") from None
        except ValidationError as error:  # half a file, another version's, or somebody's edit
            first = error.errors(include_url=False, include_input=False, include_context=False)[0]
            reason = one_line(f"{'.'.join(map(str, first['loc']))}: {first['msg']}".removeprefix(": "))
            raise InputError(f"{path}: not a whole record ({reason[:120]}); move it away and the trial runs again") from None
        if record.key != key:  # a folder that was copied or renamed
            raise InputError(f"{path}: holds the record of {record.key}; move it away and the trial runs again")
        return record

    def complete(self, key: str) -> TrialRecord | None:
        """The record of a completed trial; None for a failed one."""
        record = self.read(key)
        return record if record is not None and record.state == "complete" else None

    def lease(self, key: str) -> lease.Lease | None:
        """The lease of this trial; None while another process holds it. InputError where its folder is a symbolic link."""
        return lease.acquire(storage.refuse_link(self.folder(key)))

    def held(self, key: str) -> bool:
        """Whether any process holds the lease of this trial."""
        return lease.held(self.folder(key))

    def reclaim(self, key: str) -> bool:
        """Whether no living process works on it. Releases the lease of a dead holder.

        Otherwise a new observer on another machine would have to wait until that lease expires.
        """
        lease = self.lease(key)
        if lease is None:
            return False
        lease.release()
        return True

    def set_aside(self, key: str) -> Path:
        """Renames an unreadable record, so that the trial runs again; returns the new path.

        A folder that is a symbolic link is renamed itself: its target stays untouched.
        """
        folder = self.folder(key)
        return storage.set_aside(folder if storage.is_link(folder) else folder / "record.json")

    def __iter__(self) -> Iterator[str]:
        """The keys that have a record, sorted."""
        yield from storage.folders_with(self.root, "record.json")

    def documents(self, key: str, columns: Collection[str] | None = None) -> pd.DataFrame:
        """A row per document: role, task, doc_id, doc_hash, half, score, target, response, lm-eval's "metric,filter" columns,
        and their decomposition (see trials/evaluation/decomposition.py). A baseline also has question (with the choices) and
        cluster (see trials/tasks/splits.py). `columns` selects from these; missing ones are left out."""
        found = pq.ParquetFile(io.BytesIO(storage.read_bytes(self.folder(key) / "documents.parquet")))
        there = found.schema_arrow.names
        # without pandas' metadata: it can name types to load, and others may be able to write to the storage
        return found.read([name for name in there if columns is None or name in columns]).to_pandas(ignore_metadata=True)

    def write(self, record: TrialRecord, documents: pd.DataFrame | None = None, adapters: Collection[Path] = ()) -> None:
        """Writes a trial's results. `adapters` are local folders; they are moved to `KEY/` under their names.

        The record's outcomes are packed from `documents`.
        """
        with storage.anchored(self.folder(record.key), 2) as folder:
            for adapter in adapters:
                storage.upload(adapter, folder / adapter.name)
            if documents is not None:
                record.outcomes = pack(documents, record.spec.is_baseline)
                storage.replace_file(folder / "documents.parquet", lambda path: documents.to_parquet(path, index=False))
            storage.write_text(folder / "spec.yaml", dump(record.spec.model_dump(mode="json")))
            # last: a record counts once record.json is whole, and then everything else is there
            storage.write_text(folder / "record.json", record.model_dump_json(indent=1) + "\n")
