"""Publishes an adapter of a sweep: merges it, scores the merged model, and writes it with a model card.

The result is a local folder; `Destination.repository` uploads it to the hub as well.
"""

import fcntl
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import yaml

import trials
from orchestrator.errors import SweepFailed
from trials.errors import InputError
from trials.hub.hub import SELF, Hub, find_source
from trials.ledger import local_files, storage
from trials.ledger.outcomes import ALL
from trials.ledger.record import TrialRecord
from trials.run.threads import adopt
from trials.spec import TrialSpec

if TYPE_CHECKING:
    from analysis.report.model_card import Facts
    from analysis.results.sweep import Sweep

SCHEMA = 1
_PRIVATE = {"host", "set_aside", "failure"}  # fields of a record that describe the machine and its folders


@dataclass(frozen=True)
class Destination:
    folder: Path | None = None
    """Must be empty or missing. Default: published/SWEEP-KEY."""
    repository: str | None = None
    """ORG/NAME on the hub."""
    public: bool = False
    """Whether a new repository is public."""


def publish(
    sweep: "Sweep", name: str, destination: Destination, say: Callable[[str], None], force: bool = False
) -> dict[str, Any]:
    """Publishes the adapter of the record `name`: a key, a unique prefix of one, or a trial's number.

    Returns the folder, the hub's URL and the numbers (analysis.report.model_card.numbers) as JSON values. Raises InputError
    for a record that cannot be published. Raises SweepFailed where the merged model does not score as the adapter (unless
    `force`), could not be scored, or could not be uploaded.
    """
    record, baseline = chosen(sweep, name)
    folder = (destination.folder or Path("published") / f"{sweep.name}-{record.key}").expanduser().absolute()
    if folder.is_symlink() or (folder.exists() and (not folder.is_dir() or any(folder.iterdir()))):
        raise InputError(f"{folder}: there is something already; name a folder that is empty or not there")
    # the token is checked before minutes of work, not after them
    api = None if destination.repository is None else _hub_api(destination.repository)
    publication = Publication(sweep, record, baseline, force)
    with _staged(folder) as staging:
        numbers = publication.write(staging, say)
        local_files.follow_umask(staging)
        staging.rename(folder)
    url = None if api is None else _upload(api, destination, folder)
    return {"folder": str(folder), "url": url, "key": record.key, **numbers}


def chosen(sweep: "Sweep", name: str) -> tuple[TrialRecord, TrialRecord | None]:
    """The complete record that `name` means, and its baseline's where that is complete. A number precedes a key's prefix."""
    from analysis.explore.find import key_of  # imports pandas, which the command's other errors need not wait for

    key = key_of(sweep, name)
    record = sweep.records.get(key)
    if record is not None and record.imported is not None:
        raise InputError(
            f"{key}: lm-eval measured {record.imported.model}, and nothing was trained here; there is no adapter to publish"
        )
    if record is None or record.state != "complete":
        why = f": {record.failure.message}" if record is not None and record.failure else ""
        raise InputError(f"{key} is {'failed' if record else 'not finished'}{why}; there is no adapter to publish")
    if record.spec.is_baseline:
        raise InputError(f"{key} is a baseline: nothing was trained, so there is nothing to publish")
    # the frame has a row for the first replicate alone
    measured = sweep.trials[sweep.trials["key"] == key]["baseline"]
    baseline = sweep.records.get(measured.iloc[0] if len(measured) else record.spec.baseline().key)
    return record, baseline if baseline is not None and baseline.state == "complete" else None


class Publication:
    """The content of a published folder: merged weights, the adapter, spec.yaml, record.json and the model card."""

    def __init__(self, sweep: "Sweep", record: TrialRecord, baseline: TrialRecord | None, force: bool):
        self._sweep, self._record, self._baseline, self._force = sweep, record, baseline, force
        self._hub = Hub(sweep.hub_mirror)
        self._spec = without_paths(record.spec)

    def write(self, folder: Path, say: Callable[[str], None]) -> dict[str, Any]:
        """Fills `folder`; returns its numbers. Raises SweepFailed where they are not the adapter's."""
        from analysis.report import model_card

        merged = self._merge(folder, say)
        half = self._sweep.half or ALL
        numbers = model_card.numbers(self._record, merged, self._baseline, half, self._sweep.metrics)
        outside = model_card.outside(numbers)
        if outside and not self._force:
            raise SweepFailed(f"not published: {'; '.join(outside)}. --force publishes it all the same, and the card says so")
        spec = yaml.safe_dump(self._spec.model_dump(mode="json"), sort_keys=False)
        (folder / "spec.yaml").write_text(spec, encoding="utf-8")
        records = {"adapter": self._record, "merged": merged, "baseline": self._baseline}
        content = {"schema": SCHEMA, **numbers, **{name: _public(one) for name, one in records.items()}}
        (folder / "record.json").write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", encoding="utf-8")
        adapter = self._record.model_copy(update={"spec": self._spec})
        (folder / "README.md").write_text(model_card.card(self._facts(), adapter, merged, numbers), encoding="utf-8")
        return {"merged": merged.key, "forced": bool(outside), **numbers}

    def _merge(self, folder: Path, say: Callable[[str], None]) -> TrialRecord:
        """Writes the merged model and scores it from the written files."""
        adopt(self._threads)
        os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
        os.environ.setdefault("TQDM_DISABLE", "1")
        import torch

        from trials import publish_merge
        from trials.run.worker import HeldElsewhere

        record, ledger = self._record, self._sweep.ledger
        torch.set_num_threads(self._threads)  # as for the adapter: another order of summation gives other sums
        say(f"{record.key}: merging into {record.spec.base.dtype} weights of {self._spec.base.model}")
        publish_merge.merge(record, ledger, self._hub, folder)
        say(f"{record.key}: scoring the merged model on {', '.join(record.spec.eval)}")
        try:
            merged = publish_merge.evaluate(record, ledger, self._hub, folder)
        except HeldElsewhere as error:
            raise SweepFailed(f"not published: {error}") from error
        if (failure := merged.failure) is not None:
            raise SweepFailed(f"not published: scoring the merged model failed: {failure.kind}: {failure.message}")
        return merged

    @property
    def _threads(self) -> int:
        found = self._record.hardware.get("threads")
        return found if isinstance(found, int) and 0 < found <= 4096 else 1

    def _facts(self) -> "Facts":
        from analysis.report.model_card import Facts

        spec, sweep = self._record.spec, self._sweep
        sources = {name: find_source(spec.data, name) for name in spec.data.shares}
        data = {
            name: ", ".join(filter(None, (_public_name(one.dataset), one.config, one.split, one.files)))
            for name, one in sources.items()
        }
        if SELF in data:
            data[SELF] = "text that the base has sampled from itself"
        threads = f" --threads {self._threads}" if self._threads != 1 else ""
        return Facts(
            sweep=sweep.name,
            trials=len(sweep.complete),
            base=self._spec.base.model,
            where=self._origin(spec.base.model),
            data=data,
            datasets=sorted({one.dataset for name, one in sources.items() if name != SELF and self._hub.is_id(one.dataset)}),
            commands=[
                f"python -m trials spec.yaml --storage repeated{threads}",
                f"slimsweep publish runs/{sweep.name} {self._record.key}",
            ],
            forced=self._force,
        )

    def _origin(self, base: str) -> Literal["hub", "package", "folder"]:
        if self._hub.is_id(base):
            return "hub"
        return "package" if Path(self._hub.locate(base)).is_relative_to(Path(trials.__file__).parent) else "folder"


# ---------------------------------------------------------------------- without this machine's paths


def _public_name(name: str) -> str:
    """The last part of a path of this machine; a hub id or a relative path unchanged."""
    return Path(name).name if name.startswith(("/", "~", "$")) else name


def without_paths(spec: TrialSpec) -> TrialSpec:
    sources = {
        name: source.model_copy(update={"dataset": _public_name(source.dataset)}) for name, source in spec.data.sources.items()
    }
    base = spec.base.model_copy(update={"model": _public_name(spec.base.model)})
    roles = {
        role: one.model_copy(update={"include": None if one.include is None else _public_name(one.include)})
        for role, one in spec.eval.items()
    }
    return spec.model_copy(update={"base": base, "data": spec.data.model_copy(update={"sources": sources}), "eval": roles})


def _public(record: TrialRecord | None) -> dict[str, Any] | None:
    if record is None:
        return None
    public = record.model_copy(update={"spec": without_paths(record.spec)})
    return public.model_dump(mode="json", exclude=_PRIVATE)


# ---------------------------------------------------------------------- the folder and the hub


@contextmanager
def _staged(place: Path) -> Iterator[Path]:
    """An empty folder beside `place`, removed at the end unless it was renamed; SweepFailed while another process has it.

    `place` appears by that rename, complete, or not at all. The next publication removes the leftovers of a killed one.
    """
    staging = storage.refuse_link(place.with_name(f".{place.name}.publishing"))
    staging.mkdir(parents=True, exist_ok=True)
    handle = os.open(staging, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SweepFailed(f"another process is publishing to {place}") from None
        try:
            with storage.anchored(staging, 1) as folder:
                for left in storage.names(folder):
                    storage.remove(folder / left)
            yield staging
        finally:
            shutil.rmtree(staging, ignore_errors=True)  # refuses a link, and follows none
    finally:
        os.close(handle)


def _hub_api(repository: str) -> Any:
    """huggingface_hub's API, once the hub has accepted the environment's token."""
    from huggingface_hub import HfApi, get_token

    if re.fullmatch(r"[\w.-]+/[\w.-]+", repository) is None:
        raise InputError(f"--hub: a repository is ORG/NAME, but got {repository!r}")
    if get_token() is None:
        raise InputError("--hub: there is no token; log in with `hf auth login` or set HF_TOKEN to one that may write")
    api = HfApi()
    try:
        api.whoami()
    except _hub_errors() as error:
        raise InputError(f"--hub: the hub does not take the token: {_reason(error)}") from error
    return api


def _upload(api: Any, destination: Destination, folder: Path) -> str:
    """The repository's URL."""
    repository = destination.repository
    try:
        url = str(api.create_repo(repository, private=not destination.public, exist_ok=True))
        api.upload_folder(repo_id=repository, folder_path=str(folder), commit_message="Published by slimsweep")
    except _hub_errors() as error:
        raise SweepFailed(
            f"{repository}: the hub refused the upload: {_reason(error)}; {folder} is whole: hf upload {repository} {folder}"
        ) from error
    return url


def _hub_errors() -> tuple[type[Exception], ...]:
    from huggingface_hub.errors import HfHubHTTPError

    return HfHubHTTPError.__bases__  # OSError and the HTTP client's error; the client differs between versions


def _reason(error: BaseException) -> str:
    text = re.sub(r"hf_[A-Za-z0-9]{8,}", "hf_***", str(error))
    return next((line.strip() for line in text.splitlines() if line.strip()), type(error).__name__)[:160]
