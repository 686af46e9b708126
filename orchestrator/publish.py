"""A sweep's adapter handed on: merged, scored again, and written with its model card into a folder or onto the hub.

Everything is made in a folder beside its place, which gets its name when all of it is there: who stops a publish, or whose
model does not score as its adapter does, finds nothing at the place. The next publish to the place clears away what was left.
"""

import fcntl
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import yaml
from rich import box
from rich.table import Table

import trials
from orchestrator.errors import SweepFailed
from trials.errors import InputError
from trials.hub.hub import SELF, Hub, find_source
from trials.ledger import storage
from trials.ledger.outcomes import ALL
from trials.ledger.record import TrialRecord
from trials.spec import TrialSpec

if TYPE_CHECKING:
    from analysis.results.sweep import Sweep

SCHEMA = 1
_PRIVATE = {"host", "set_aside", "failure"}  # of a record: what speaks of the machine and its folders

Say = Callable[[str], None]


def publish(sweep: "Sweep", asked: str, place: Path | None, repository: str | None, public: bool, force: bool, say: Say) -> Any:
    """The published folder, its numbers (see analysis.card.numbers) and where on the hub it is, as JSON values.

    `asked` is a record's key, a unique beginning of one, or a trial's number. `place` is the folder to be made. Raises
    InputError for what cannot be published, and SweepFailed where the merged model does not score as the adapter (unless
    `force`), could not be scored, or could not be uploaded.
    """
    record, baseline = chosen(sweep, asked)
    place = (place or Path("published") / f"{sweep.name}-{record.key}").expanduser().absolute()
    if place.is_symlink() or (place.exists() and (not place.is_dir() or any(place.iterdir()))):
        raise InputError(f"{place}: there is something already; name a folder that is empty or not there")
    api = _hub_api(repository) if repository is not None else None
    with _staged(place) as staging:
        told = _made(sweep, record, baseline, staging, force, say)
        storage.follow_umask(staging)
        staging.rename(place)
    url = None if api is None else _uploaded(api, str(repository), place, public)
    return {"folder": str(place), "url": url, "key": record.key, **told}


def chosen(sweep: "Sweep", asked: str) -> tuple[TrialRecord, TrialRecord | None]:
    """The complete record that is meant, and its baseline's where that is complete. A number wins over a key's beginning."""
    frame = sweep.trials
    number = re.fullmatch(r"#?(\d{1,9})", asked)
    own = frame[frame["number"] == int(number[1])] if number else frame[:0]
    if len(own):
        keys = {str(own.iloc[0]["key"])}
    elif asked.startswith("#"):
        raise InputError(f"{sweep.name} has no trial {asked}; it has {len(frame)}, from #0 on")
    else:
        keys = {key for key in [*frame["key"], *sweep.records] if key and key.startswith(asked)}
    if len(keys) != 1:
        what = (
            f"several keys begin so: {', '.join(sorted(keys)[:4])}" if keys else "slimsweep status DIR lists those on the front"
        )
        raise InputError(f"{sweep.name} has no one record {asked!r}; {what}")
    record = sweep.records.get(key := keys.pop())
    if record is None or record.state != "complete":
        why = f": {record.failure.message}" if record is not None and record.failure else ""
        raise InputError(f"{key} is {'failed' if record else 'not finished'}{why}; there is no adapter to publish")
    if record.spec.is_baseline:
        raise InputError(f"{key} is a baseline: nothing was trained, so there is nothing to publish")
    measured = frame[frame["key"] == key]["baseline"]  # not of a replicate beside the first
    baseline = sweep.records.get(measured.iloc[0] if len(measured) else record.spec.baseline().key)
    return record, baseline if baseline is not None and baseline.state == "complete" else None


def table(told: dict[str, Any]) -> Table:
    """Of `publish`: the roles' scores side by side, in percent."""
    shown = Table(title=f"{told['key']} and what was made of it, %", title_justify="left", box=box.SIMPLE, pad_edge=False)
    for head in ("role", "documents", "baseline", "adapter (95 %)", "merged (95 %)", "merged - adapter (95 %)"):
        shown.add_column(head, justify="left" if head == "role" else "right", no_wrap=True)
    for role, one in told["roles"].items():
        cells = [_percent(one[name], span) for name, span in (("baseline", False), ("adapter", True), ("merged", True))]
        shown.add_row(role, str(one["n"]), *cells, _percent(one["difference"], True, "+"))
    return shown


def _percent(one: dict[str, float | None] | None, span: bool, sign: str = "") -> str:
    if one is None:
        return "-"
    value, low, high = (None if part is None else f"{100 * part:{sign}.1f}" for part in (one["value"], one["low"], one["high"]))
    return f"{value} [{low}, {high}]" if span and low is not None else str(value)


def _made(
    sweep: "Sweep", record: TrialRecord, baseline: TrialRecord | None, folder: Path, force: bool, say: Say
) -> dict[str, Any]:
    """Fills `folder`; the numbers, as JSON values. Raises SweepFailed where they are not the adapter's."""
    from analysis.report import model_card

    hub = Hub(sweep.hub_mirror)
    merged = _merged(sweep, record, hub, folder, say)
    found = model_card.numbers(record, merged, baseline, sweep.half or ALL)
    beyond = model_card.outside(found)
    if beyond and not force:
        raise SweepFailed(f"not published: {'; '.join(beyond)}. --force publishes it all the same, and the card says so")
    spec = _shared(record.spec)
    (folder / "spec.yaml").write_text(yaml.safe_dump(spec.model_dump(mode="json"), sort_keys=False), encoding="utf-8")
    told = {"schema": SCHEMA, **found}
    for name, one in (("adapter", record), ("merged", merged), ("baseline", baseline)):
        told[name] = None if one is None else _shared_record(one)
    (folder / "record.json").write_text(json.dumps(told, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    text = model_card.card(_facts(sweep, record, hub, spec, force), record.model_copy(update={"spec": spec}), merged, found)
    (folder / "README.md").write_text(text, encoding="utf-8")
    return {"merged": merged.key, "forced": bool(beyond), **found}


def _merged(sweep: "Sweep", record: TrialRecord, hub: Hub, folder: Path, say: Say) -> TrialRecord:
    threads = _threads(record)
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))  # before torch is imported
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    import torch

    from trials import publish_merge
    from trials.run.worker import HeldElsewhere

    torch.set_num_threads(threads)  # what the adapter was scored with: sums in another order are other sums
    say(f"{record.key}: merging into {record.spec.base.dtype} weights of {_shared_name(record.spec.base.model)}")
    publish_merge.merge(record, sweep.ledger, hub, folder)
    say(f"{record.key}: scoring the merged model on {', '.join(record.spec.eval)}")
    try:
        merged = publish_merge.evaluate(record, sweep.ledger, hub, folder)
    except HeldElsewhere as error:
        raise SweepFailed(f"not published: {error}") from error
    if merged.failure is not None:
        raise SweepFailed(f"not published: scoring the merged model failed: {merged.failure.kind}: {merged.failure.message}")
    return merged


def _threads(record: TrialRecord) -> int:
    found = record.hardware.get("threads")
    return found if isinstance(found, int) and 0 < found <= 4096 else 1


# ---------------------------------------------------------------------- what others may read


def _shared_name(name: str) -> str:
    """A path of this machine as its last part alone; an id or a relative path as it is."""
    return Path(name).name if name.startswith(("/", "~", "$")) else name


def _shared(spec: TrialSpec) -> TrialSpec:
    sources = {
        name: source.model_copy(update={"dataset": _shared_name(source.dataset)}) for name, source in spec.data.sources.items()
    }
    base = spec.base.model_copy(update={"model": _shared_name(spec.base.model)})
    return spec.model_copy(update={"base": base, "data": spec.data.model_copy(update={"sources": sources})})


def _shared_record(record: TrialRecord) -> dict[str, Any]:
    shared = record.model_copy(update={"spec": _shared(record.spec)})
    return shared.model_dump(mode="json", exclude=_PRIVATE)


def _facts(sweep: "Sweep", record: TrialRecord, hub: Hub, spec: TrialSpec, forced: bool) -> Any:
    from analysis.report.model_card import Facts

    sources = {name: find_source(record.spec.data, name) for name in record.spec.data.shares}
    threads = _threads(record)
    return Facts(
        sweep=sweep.name,
        trials=len(sweep.complete),
        base=spec.base.model,
        where=_where(record.spec.base.model, hub),
        data={
            name: "text that the base has sampled from itself"
            if name == SELF
            else ", ".join(part for part in (_shared_name(source.dataset), source.config, source.split, source.files) if part)
            for name, source in sources.items()
        },
        datasets=sorted({source.dataset for name, source in sources.items() if name != SELF and hub.is_id(source.dataset)}),
        commands=[
            f"python -m trials spec.yaml --storage repeated{f' --threads {threads}' if threads != 1 else ''}",
            f"slimsweep publish runs/{sweep.name} {record.key}",
        ],
        forced=forced,
    )


def _where(name: str, hub: Hub) -> Literal["hub", "package", "folder"]:
    if hub.is_id(name):
        return "hub"
    return "package" if Path(hub.locate(name)).is_relative_to(Path(trials.__file__).parent) else "folder"


# ---------------------------------------------------------------------- the folder and the hub


@contextmanager
def _staged(place: Path) -> Iterator[Path]:
    """An empty folder beside `place`, gone afterwards unless it was renamed; SweepFailed while another process has it."""
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
            shutil.rmtree(staging, ignore_errors=True)  # which refuses a link, and follows none
    finally:
        os.close(handle)


def _hub_api(repository: str) -> Any:
    """huggingface_hub's API with the environment's token, which is tried before any work is done."""
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


def _uploaded(api: Any, repository: str, folder: Path, public: bool) -> str:
    try:
        url = str(api.create_repo(repository, private=not public, exist_ok=True))
        api.upload_folder(repo_id=repository, folder_path=str(folder), commit_message="Published by slimsweep")
    except _hub_errors() as error:
        raise SweepFailed(
            f"{repository}: the hub refused the upload: {_reason(error)}; {folder} is whole: hf upload {repository} {folder}"
        ) from error
    return url


def _hub_errors() -> tuple[type[Exception], ...]:
    """What a hub that refuses, or that is not reached, raises."""
    from huggingface_hub.errors import HfHubHTTPError

    return HfHubHTTPError.__bases__  # OSError, and that of the client that huggingface_hub asks with: others in other versions


def _reason(error: BaseException) -> str:
    text = re.sub(r"hf_[A-Za-z0-9]{8,}", "hf_***", str(error))
    return next((line.strip() for line in text.splitlines() if line.strip()), type(error).__name__)[:160]
