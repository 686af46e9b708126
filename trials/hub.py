"""Where models, data sets, sources and tasks are read from: what the package bundles, then the mirror folder, then the hub.

A package inside `trials` bundles models and data sets, sources or lm-eval tasks by holding a folder `hub` (laid out `org/name`,
as a mirror), a `sources.yaml` or a folder `tasks`.
"""

import difflib
import hashlib
import re
from pathlib import Path
from typing import Any

from trials import patience
from trials.errors import InputError, StorageFailed, disk_failure, storage_failed
from trials.spec import Data, Source
from trials.storage import local
from trials.yamlfile import YamlFile

SELF = "self"
"""The source whose text the base samples itself."""
_HERE = Path(__file__).parent
_FILES = {".jsonl": "json", ".json": "json", ".parquet": "parquet"}  # by their ending, what reads them
_TOKEN = re.compile(r"hf_[A-Za-z0-9]{8,}")
TASK_FOLDERS = sorted(_HERE.glob("*/tasks"))


class Hub:
    """Resolves ids. `mirror` is a folder laid out as `org/name`, read before the hub itself."""

    def __init__(self, mirror: Path | str | None = None):
        self.mirror = local(mirror, "hub_mirror").resolve() if mirror else None
        if self.mirror and not self.mirror.is_dir():
            raise InputError(f"hub_mirror: {self.mirror} is not a folder")
        patience.install()
        self._roots = [*sorted(_HERE.glob("*/hub")), *([self.mirror] if self.mirror else [])]

    def locate(self, name: str) -> str:
        """The folder that holds `name`, absolute, or `name` itself where only the hub can have it."""
        for candidate in [*(root / name for root in self._roots), local(name)]:
            if candidate.is_dir():
                return str(candidate.resolve())
        return name

    def has(self, name: str) -> bool:
        """Whether a folder holds `name`; else only the hub can."""
        return Path(self.locate(name)).is_dir()

    def is_id(self, name: str) -> bool:
        """Whether others find `name` on the hub as well: no folder of this machine or of the package."""
        place = Path(self.locate(name))
        return re.fullmatch(r"[^/~.$][^/]*/[^/]+", name) is not None and (
            not place.is_dir() or (self.mirror is not None and place.is_relative_to(self.mirror))
        )

    def dataset_arguments(self, name: str) -> dict[str, Any]:
        """load_dataset's `path` for `name`, and for a folder a cache of its own that changes with the folder's files.

        datasets knows a folder by its path alone and would go on serving what it once read there.
        """
        path = Path(self.locate(name))
        if not path.is_dir():
            return {"path": name}
        files = sorted(file for file in path.rglob("*") if file.is_file())
        return {"path": str(path), "cache_dir": _cache_of(files)}

    def missing(self, what: str, name: str, error: BaseException, revision: str | None = None) -> InputError | StorageFailed:
        """The one line for a model or data set that no place has, or for which the disk has no room."""
        if full := disk_failure(error):
            return storage_failed(f"{what} {name!r}: {getattr(error, 'filename', None) or 'the cache of the hub'}", full)
        if refused := _refused(what, name, error, revision):
            return InputError(f"{what} {name!r} {refused}")
        if self.has(name):
            return InputError(f"{what} {name!r} in {self.locate(name)} cannot be read: {_reason(error)}")
        places = f"the mirror {self.mirror}" if self.mirror else "a mirror (hub_mirror is not set)"
        return InputError(f"{what} {name!r} is neither a folder, nor in {places}, nor to be had from the hub: {_reason(error)}")

    def state(self, name: str, source: Source) -> str:
        """Another one when a source's local files are others; the hub's stay the same as long as a process lives."""
        return str(self._arguments(name, source).get("cache_dir", source.dataset))

    def _arguments(self, name: str, source: Source) -> dict[str, Any]:
        return _of_files(name, source) if Path(source.dataset).suffix in _FILES else self.dataset_arguments(source.dataset)

    def rows(self, name: str, source: Source) -> Any:
        """A source's rows, a datasets.Dataset; InputError when there is no such data set, file, configuration or split."""
        import datasets

        local = Path(source.dataset).suffix in _FILES
        arguments = self._arguments(name, source)
        if source.files and not local:
            arguments["data_files"] = source.files
        try:
            return datasets.load_dataset(**arguments, name=None if local else source.config, split=source.split)
        except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
            missing = self.missing(f"data set of source {name!r},", source.dataset, error)
            if isinstance(missing, StorageFailed) or not (local or self.has(source.dataset)):
                raise missing from error
            asked = " ".join(part for part in (source.files, f"{source.config or 'default'}/{source.split}") if part)
            # what reads the file has the reason, what called it says only that there was one
            reason = " ".join(str(error.__cause__ or error).split())[:160]
            raise InputError(f"source {name!r}: {source.dataset} has no {asked}: {reason}") from error


def _of_files(name: str, source: Source) -> dict[str, Any]:
    """load_dataset's arguments for local files, with a cache that changes with them."""
    if source.config or source.files:
        raise InputError(f"source {name!r}: {source.dataset} is a file, which has no config or files in it")
    pattern = local(source.dataset, f"source {name!r}")
    matching = [pattern] if pattern.is_file() else Path(pattern.anchor).glob(str(pattern.relative_to(pattern.anchor)))
    found = sorted(path.resolve() for path in matching if path.is_file())
    if not found:
        raise InputError(f"source {name!r}: no file {source.dataset} in {Path.cwd()}")
    files = {"train": [str(path) for path in found]}
    return {"path": _FILES[pattern.suffix], "data_files": files, "cache_dir": _cache_of(found)}


def _cache_of(files: list[Path]) -> str:
    """A cache that serves these files as they are now: datasets knows them by their paths."""
    import datasets

    state = "|".join(f"{file}:{file.stat().st_size}:{file.stat().st_mtime_ns}" for file in files)
    return str(Path(datasets.config.HF_DATASETS_CACHE) / "slimsweep" / hashlib.sha256(state.encode()).hexdigest()[:16])


def _refused(what: str, name: str, error: BaseException, revision: str | None) -> str | None:
    """What the hub has against the request, where that is something that its reader can put right."""
    from huggingface_hub.errors import DisabledRepoError, GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    told = _answer(error)
    if isinstance(told, GatedRepoError):
        page = f"https://huggingface.co/{'datasets/' if what.startswith('data set') else ''}{name}"
        if told.response.status_code == 401:  # 403: the hub knows who asks
            return f"is gated: accept its licence at {page}, then log in with `hf auth login` or set HF_TOKEN"
        return f"is gated: the account of this token has no access; accept its licence at {page}, or wait until it is granted"
    if isinstance(told, DisabledRepoError):
        return "has been disabled on the hub"
    if isinstance(told, RevisionNotFoundError):
        return f"has no revision {revision!r} on the hub; https://huggingface.co/{name}/tree/main lists its branches and tags"
    if isinstance(told, RepositoryNotFoundError) and told.response.status_code != 404:
        return (
            "is not to be had from the hub: no such public repository; if it is private, log in with `hf auth login` or set "
            "HF_TOKEN"
        )
    return None


def _answer(error: BaseException) -> BaseException | None:
    """The hub's own answer where it gave one: what is raised around it often ends where that begins."""
    from huggingface_hub.errors import HfHubHTTPError

    told: BaseException | None = error
    while told is not None and not isinstance(told, HfHubHTTPError):
        told = told.__cause__
    return told


def _reason(error: BaseException) -> str:
    text = _TOKEN.sub("hf_***", str(_answer(error) or error))
    return next((line.strip() for line in text.splitlines() if line.strip()), type(error).__name__)[:160]


def builtin_sources() -> dict[str, Source]:
    sources = {}
    for path in [_HERE / "sources.yaml", *sorted(_HERE.glob("*/sources.yaml"))]:
        for name, fields in YamlFile(path).data.items():
            sources[name] = Source.model_validate(fields)
    return sources


def find_source(data: Data, name: str) -> Source:
    """The source that a mix or a replay names; raises InputError with the nearest known name."""
    if SELF in data.sources:
        raise InputError(f"data.sources: {SELF!r} is the text that the base samples itself; give your source another name")
    known = {**builtin_sources(), **data.sources, SELF: Source(dataset=SELF, text="{{text}}")}
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        place = "data.replay" if name == data.replay.source else "data.mix"
        raise InputError(f"{place}: no source {name!r}; {hint}known: {', '.join(sorted(known))}; others go into data.sources")
    return known[name]
