"""Resolves models, data sets, sources and tasks: first in the package, then in the mirror folder, then on the hub.

A package inside `trials` bundles models and data sets in a folder `hub` (laid out as `org/name`, like a mirror), sources in a
`sources.yaml`, and lm-eval tasks in a folder `tasks`.
"""

import difflib
import glob
import hashlib
import logging
import os
import re
from functools import cache
from pathlib import Path
from typing import Any

from trials.data import compression, row_files
from trials.errors import InputError, StorageFailed, disk_failure, storage_failed
from trials.hub import fingerprint, http_retry
from trials.ledger.storage import local
from trials.spec import Data, Source
from trials.yaml_file import YamlFile

SELF = "self"
"""The source whose text is sampled from the base."""
COMMIT = "commit:"
_PACKAGE = Path(__file__).resolve().parents[1]
_TOKEN = re.compile(r"hf_[A-Za-z0-9]{8,}")
TASK_FOLDERS = sorted(path for path in _PACKAGE.rglob("tasks") if path != _PACKAGE / "tasks")


class Hub:
    """Resolves ids. `mirror` is a folder laid out as `org/name`, searched before the hub."""

    def __init__(self, mirror: Path | str | None = None):
        self.mirror = local(mirror, "hub_mirror").resolve() if mirror else None
        if self.mirror and not self.mirror.is_dir():
            raise InputError(f"hub_mirror: {self.mirror} is not a folder")
        patience = http_retry.install()
        if self.mirror:  # where a mirror is, there is often no network, and then nobody should wait for it
            patience.first = 0.0
        # the package first: a mirror must not replace the bundled base that records are compared with
        self._roots = [*sorted(_PACKAGE.glob("*/hub")), *([self.mirror] if self.mirror else [])]

    def locate(self, name: str) -> str:
        """The absolute path of the folder `name`, or `name` itself where only the hub can have it."""
        for candidate in [*(root / name for root in self._roots), local(name)]:
            if candidate.is_dir():
                return str(candidate.resolve())
        return name

    def refuse_lookalike(self, what: str, name: str) -> None:
        """Raises InputError where the working folder has a folder with the name of a data set of the hub.

        `datasets` would read the folder instead.
        """
        lookalike = Path.cwd() / name
        if Path(name).is_absolute():  # no name of the hub
            return
        if lookalike.is_dir() and not any((root / name).is_dir() for root in self._roots):
            raise InputError(
                f"{what} reads {name} from the hub, but the folder {lookalike} would be read in its place; rename that folder, "
                f"start the command elsewhere, or set hub_mirror to {Path.cwd()} if the folder is a copy of the hub's"
            )

    def has(self, name: str) -> bool:
        """Whether `name` is a folder on this machine; else only the hub can have it."""
        return Path(self.locate(name)).is_dir()

    def is_id(self, name: str) -> bool:
        """Whether others find `name` on the hub too: it is no folder of this machine or of the package."""
        place = Path(self.locate(name))
        return re.fullmatch(r"[^/~.$][^/]*/[^/]+", name) is not None and (
            not place.is_dir() or (self.mirror is not None and place.is_relative_to(self.mirror))
        )

    def dataset_arguments(self, name: str) -> dict[str, Any]:
        """load_dataset's `path` for `name`, and for a folder its own cache, which changes with the folder's files.

        datasets identifies a folder by its path only and would serve outdated rows from its cache.
        """
        path = Path(self.locate(name))
        if not path.is_dir():
            return {"path": name}
        _folders_are_no_patterns()
        files = sorted(file for file in path.rglob("*") if file.is_file())
        return {"path": str(path), "cache_dir": cache_of(files)}

    def bundles(self, path: Path) -> bool:
        """Whether the file or folder is part of the package."""
        return path.resolve().is_relative_to(_PACKAGE)

    def folder_files(self, name: str, pattern: str | None = None) -> dict[str, Path] | None:
        """The files of a local data set by relative path, without hidden ones; None where only the hub has it.

        `pattern` selects files; the card is always included, for it defines how files are read.
        """
        folder = Path(self.locate(name))
        if not folder.is_dir():
            return None
        found = [*folder.glob(pattern), *folder.glob("README.md")] if pattern else folder.rglob("*")
        files = {path.relative_to(folder).as_posix(): path for path in found if path.is_file()}
        return {name: path for name, path in files.items() if not any(part.startswith(".") for part in name.split("/"))}

    def files(self, name: str, source: Source) -> dict[str, Path] | None:
        """The local files of a source, in the order of their rows; None where only the hub has them."""
        if not (found := self._files(name, source)):
            return self.folder_files(source.dataset, source.files)
        return {f"{number:09}": file for number, file in enumerate(found)}  # the names have no other effect

    def commit(self, name: str, kind: str, revision: str | None) -> str | None:
        """The commit of the hub's branch or tag, offline the cached one; `kind` is model or dataset.

        Raises InputError where the hub gives none for a name that is nearly one of the mirror's.
        """
        from huggingface_hub import HfApi, constants
        from huggingface_hub.errors import HFValidationError
        from huggingface_hub.utils import httpx

        near = self.near(name)
        if near is not None:
            http_retry.install().given_up = True  # probably a typing error, for which nobody should wait a minute
        if not constants.HF_HUB_OFFLINE:
            try:
                return HfApi().repo_info(name, repo_type=kind, revision=revision, timeout=10).sha
            except HFValidationError:  # not an id: a path that does not exist
                return None
            except (OSError, httpx.HTTPError):  # no network, or no such repository: loading it will report which
                pass
        cached = _cached_commit(name, kind, revision or "main")
        if cached is None and near is not None:
            what = "base.model" if kind == "model" else "data set"
            raise InputError(
                f"{what} {name!r} is neither a folder, nor in the mirror {self.mirror}, nor to be had from the hub; did you "
                f"mean {near!r}, which the mirror has?"
            )
        return cached

    def near(self, name: str) -> str | None:
        """The folder of the mirror whose name is nearly `name`; None without one."""
        folders = self.mirror.glob("*/*") if self.mirror else ()
        known = [f"{one.parent.name}/{one.name}" for one in folders if one.is_dir()]
        return next(iter(difflib.get_close_matches(name, known, n=1, cutoff=0.85)), None)

    def missing(self, what: str, name: str, error: BaseException, revision: str | None = None) -> InputError | StorageFailed:
        """The error for a model or data set that is found nowhere, or for which the disk has no room."""
        if full := disk_failure(error):
            return storage_failed(f"{what} {name!r}: {getattr(error, 'filename', None) or 'the cache of the hub'}", full)
        if refused := _refused(what, name, error, revision):
            return InputError(f"{what} {name!r} {refused}")
        if self.has(name):
            return InputError(f"{what} {name!r} in {self.locate(name)} cannot be read: {_reason(error)}")
        places = f"the mirror {self.mirror}" if self.mirror else "a mirror (hub_mirror is not set)"
        return InputError(f"{what} {name!r} is neither a folder, nor in {places}, nor to be had from the hub: {_reason(error)}")

    def state(self, name: str, source: Source) -> str:
        """A string that changes with a source's local files. Sources of the hub are constant within a process."""
        if files := self._files(name, source):
            return cache_of(files)  # by content: a file may be replaced at the same path
        return str(self.dataset_arguments(source.dataset).get("cache_dir", source.dataset))

    def rows(self, name: str, source: Source) -> row_files.Rows:
        """A source's rows. InputError for a missing data set, file, configuration or split, or a broken row."""
        if not (files := self._files(name, source)):
            return self._loaded(name, source, {**self.dataset_arguments(source.dataset), "name": source.config})
        kinds = sorted({row_files.TABLES.get(row_files.ending(file), "") for file in files})
        if len(kinds) > 1:
            raise InputError(f"source {name!r}: {source.dataset} is files of different kinds: {', '.join(map(str, files))}")
        if kinds != [""]:
            plain = self._unpacked(name, source, files)
            escaped = [glob.escape(str(file.resolve())) for file in plain]  # datasets takes each for a pattern
            return self._loaded(
                name, source, {"path": kinds[0], "data_files": {"train": escaped}, "cache_dir": cache_of(files)}
            )
        try:
            return row_files.FileRows(files, source.split, Path(cache_of(files)))
        except InputError as error:
            raise InputError(f"source {name!r}: {error}") from None
        except ValueError as error:
            raise InputError(f"source {name!r}: {source.dataset} has no {source.split}: {error}") from None
        except OSError as error:
            raise self.missing(f"data set of source {name!r},", source.dataset, error) from error

    def _unpacked(self, name: str, source: Source, files: list[Path]) -> list[Path]:
        try:
            cache = Path(cache_of(files))
            return [compression.unpacked(file, cache) for file in files]
        except InputError as error:
            raise InputError(f"source {name!r}: {error}") from None
        except OSError as error:
            raise self.missing(f"data set of source {name!r},", source.dataset, error) from error

    def _loaded(self, name: str, source: Source, arguments: dict[str, Any]) -> row_files.Rows:
        """The rows from load_dataset."""
        import datasets

        datasets.logging.set_verbosity(datasets.logging.CRITICAL)  # its errors repeat what it logs
        logging.getLogger("huggingface_hub.repocard").setLevel(logging.ERROR)  # a folder needs no card
        files = "data_files" in arguments
        if source.files and not files:
            arguments["data_files"] = source.files
        try:
            revision = None if files or self.has(source.dataset) else source.revision
            loaded = datasets.load_dataset(**arguments, split=source.split, revision=revision)
            check_commit(f"source {name!r}: {source.dataset}", revision, loaded)
        except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
            missing = self.missing(f"data set of source {name!r},", source.dataset, error)
            if isinstance(missing, StorageFailed) or not (files or self.has(source.dataset)):
                raise missing from error
            wanted = " ".join(part for part in (source.files, f"{source.config or 'default'}/{source.split}") if part)
            # the cause has the reason; the outer error says only that there was one
            reason = " ".join(str(error.__cause__ or error).split())[:160]
            raise InputError(f"source {name!r}: {source.dataset} has no {wanted}: {reason}") from error
        if not len(loaded):
            raise InputError(f"source {name!r}: {source.dataset} has no rows")
        return row_files.TableRows(loaded, source.dataset)

    def _files(self, name: str, source: Source) -> list[Path]:
        """The local files of a source; empty for a folder or a data set of the hub."""
        shipped = builtin_sources().get(name)
        if shipped is not None and shipped.dataset == source.dataset:
            self.refuse_lookalike(f"source {name!r}", source.dataset)
        path = local(source.dataset, f"source {name!r}")
        if path.is_dir() or self.has(source.dataset) or not (path.exists() or row_files.known(path)):
            return []
        if source.config or source.files:
            raise InputError(f"source {name!r}: {source.dataset} is a file, which has no config or files in it")
        if not row_files.known(path):
            raise InputError(f"source {name!r}: {source.dataset} is a file, but none of {row_files.endings()}")
        found = [path]
        if not path.exists():
            # existing folders at its beginning are literal, only the rest is a pattern
            folder = next(parent for parent in path.parents if parent.is_dir())
            found = sorted(match for match in folder.glob(str(path.relative_to(folder))) if match.is_file())
        if not found:
            near = difflib.get_close_matches(path.name, (one.name for one in folder.iterdir() if row_files.known(one)), n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise InputError(f"source {name!r}: data.sources.{name}.dataset: no file {source.dataset} in {Path.cwd()}{hint}")
        if devices := [file for file in found if not file.is_file()]:
            raise InputError(f"source {name!r}: {devices[0]}: is a pipe or a device; rows are read more than once")
        if refused := [file for file in found if not os.access(file, os.R_OK)]:
            raise InputError(f"source {name!r}: {refused[0]}: cannot be read: permission denied")
        return found


@cache
def _folders_are_no_patterns() -> None:
    """Escapes a folder's path in patterns of datasets, which otherwise finds no file in a folder named `[v2]`."""
    import datasets

    resolve = datasets.data_files.resolve_pattern

    def quoted(pattern: str, base_path: str, *arguments: Any, **named: Any) -> Any:
        folder = glob.escape(base_path) if Path(base_path).is_dir() else base_path
        return resolve(pattern, folder, *arguments, **named)

    datasets.data_files.resolve_pattern = quoted


def cache_of(files: list[Path]) -> str:
    """A cache folder for the current content of these files: datasets identifies them by their paths only."""
    import datasets

    state = "|".join(f"{file.resolve()}:{fingerprint.sha256(file)}" for file in files)
    return str(Path(datasets.config.HF_DATASETS_CACHE) / "slimsweep" / hashlib.sha256(state.encode()).hexdigest()[:16])


def is_commit(text: str) -> bool:
    return re.fullmatch(r"[0-9a-f]{40}", text) is not None


def commit_of(identity: str | None) -> str | None:
    """The commit of an entry of `content` (see trials/hub/identity.py); None for a checksum."""
    return identity.removeprefix(COMMIT) if identity is not None and identity.startswith(COMMIT) else None


def check_commit(what: str, wanted: str | None, rows: Any) -> None:
    """Raises InputError for rows of another commit: offline, `datasets` serves the last commit that it has prepared."""
    commits = {part for file in rows.cache_files for part in Path(file["filename"]).parts if is_commit(part)}
    if wanted is not None and is_commit(wanted) and commits and wanted not in commits:
        raise InputError(f"{what}: the cache holds commit {commits.pop()[:12]}, but this trial is pinned to {wanted[:12]}")


def _cached_commit(name: str, kind: str, revision: str) -> str | None:
    """The commit in huggingface_hub's cache, or the last one prepared by `datasets`, which it serves offline."""
    import datasets
    from datasets.naming import camelcase_to_snakecase
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    *above, last = name.split("/")
    prepared = Path(datasets.config.HF_DATASETS_CACHE) / "___".join([*above, camelcase_to_snakecase(last)])
    found = [path for path in prepared.glob("*/*/*") if path.is_dir() and is_commit(path.name)]
    if kind == "dataset" and found:
        return max(found, key=lambda path: path.stat().st_mtime).name
    ref = Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=name, repo_type=kind) / "refs" / revision
    return ref.read_text(encoding="utf-8").strip() if ref.is_file() else None


def _refused(what: str, name: str, error: BaseException, revision: str | None) -> str | None:
    """The hub's reason for a refusal, where the user can do something about it."""
    from huggingface_hub.errors import DisabledRepoError, GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    answer = _answer(error)
    if isinstance(answer, GatedRepoError):
        page = f"https://huggingface.co/{'datasets/' if what.startswith('data set') else ''}{name}"
        if answer.response.status_code == 401:  # 403: logged in, but without access
            return f"is gated: accept its licence at {page}, then log in with `hf auth login` or set HF_TOKEN"
        return f"is gated: the account of this token has no access; accept its licence at {page}, or wait until it is granted"
    if isinstance(answer, DisabledRepoError):
        return "has been disabled on the hub"
    if isinstance(answer, RevisionNotFoundError):
        return f"has no revision {revision!r} on the hub; https://huggingface.co/{name}/tree/main lists its branches and tags"
    if isinstance(answer, RepositoryNotFoundError) and answer.response.status_code != 404:
        return (
            "is not to be had from the hub: no such public repository; if it is private, log in with `hf auth login` or set "
            "HF_TOKEN"
        )
    return None


def _answer(error: BaseException) -> BaseException | None:
    """The hub's own answer among the causes of an error, if there is one: outer errors often lack the reason."""
    from huggingface_hub.errors import HfHubHTTPError

    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, HfHubHTTPError):
        cause = cause.__cause__
    return cause


def _reason(error: BaseException) -> str:
    text = _TOKEN.sub("hf_***", str(_answer(error) or error))
    return next((line.strip() for line in text.splitlines() if line.strip()), type(error).__name__)[:160]


@cache
def builtin_sources() -> dict[str, Source]:
    sources = {}
    for path in [_PACKAGE / "sources.yaml", *sorted(_PACKAGE.glob("*/sources.yaml"))]:
        for name, fields in YamlFile(path).data.items():
            sources[name] = Source.model_validate(fields)
    return sources


def find_source(data: Data, name: str) -> Source:
    """A source by its name in a mix or a replay. Raises InputError with the nearest known name."""
    if SELF in data.sources:
        raise InputError(f"data.sources: {SELF!r} is the text sampled from the base; give your source another name")
    known = {**builtin_sources(), **data.sources, SELF: Source(dataset=SELF, text="{{text}}")}
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        files = {Path(own.dataset).stem: one for one, own in data.sources.items()}  # a source named by its file
        meant = near or [files[stem] for stem in difflib.get_close_matches(name, files, n=1)] or list(data.sources)
        hint = f"did you mean {' or '.join(map(repr, meant))}? " if meant else ""
        place = "data.replay" if name == data.replay.source else "data.mix"
        raise InputError(f"{place}: no source {name!r}; {hint}known: {', '.join(sorted(known))}; others go into data.sources")
    commit = commit_of(data.content.get(name))
    return known[name].model_copy(update={"revision": commit}) if commit else known[name]
