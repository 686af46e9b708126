"""Local data files of a folder's tasks: found beside the task's file, whatever the working folder."""

import re
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

from trials.errors import InputError
from trials.ledger.storage import local
from trials.tasks.folder import HIDDEN, Leaf, TaskFolder, hidden

BUILDERS = ("json", "csv", "parquet", "arrow", "text")
"""Values of `dataset_path` that read local files."""
_OUTSIDE = (
    "outside the task folder, which alone travels to a cluster; put it inside, or give its absolute path, which every node "
    "then needs"
)
_OTHER_BUILDERS = ("sql", "spark", "generator")
"""Builders of `datasets` that are none of its packaged modules."""
_URL = re.compile(r"[a-z0-9+]+://", re.IGNORECASE)


def data_folder(folder: TaskFolder, leaf: Leaf) -> Path | None:
    """The folder that `dataset_path` names relative to the task's file; None where it names another place.

    Raises InputError for a relative name of a folder that is not pinned.
    """
    name = leaf.setting("dataset_path")
    if not isinstance(name, str) or name in BUILDERS:
        return None
    places = (above / name for above in folder.search_path(leaf))
    found = next((place.resolve() for place in places if place.is_dir()), None)
    if found is None or Path(name).is_absolute():
        return found
    where = f"{folder.place(leaf, 'dataset_path')}: dataset_path {name}"
    if not found.is_relative_to(folder.root):
        raise InputError(f"{where}: {found} is {_OUTSIDE}")
    if hidden(found.relative_to(folder.root)):
        raise InputError(f"{where}: {HIDDEN}")
    return found


def here(folder: TaskFolder, leaf: Leaf) -> bool:
    """Whether the task's data are local files that its YAML names."""
    return leaf.setting("dataset_path") in BUILDERS or data_folder(folder, leaf) is not None


def data_files(folder: TaskFolder, leaf: Leaf) -> dict[str, list[Path]] | None:
    """Local data files by split, sorted within a pattern; None for a task whose data are not local files.

    Relative names are searched beside the task's file, then beside the files that it includes, then in the folder. Raises
    InputError for a file that is not there, that only a network has, or that is not pinned.
    """
    builder, kwargs = leaf.setting("dataset_path"), leaf.setting("dataset_kwargs")
    if builder is None:  # code makes the data, from whatever settings it likes
        return None
    where = folder.place(leaf, "dataset_kwargs")
    if not isinstance(kwargs, dict | None):
        raise InputError(f"{where}: dataset_kwargs: expected keys and values, but got {kwargs!r}")
    named, above = (kwargs or {}).get("data_files"), (kwargs or {}).get("data_dir")
    if not isinstance(above, str | None):
        raise InputError(f"{where}: data_dir: expected the name of a folder, but got {above!r}")
    if builder not in BUILDERS:
        _check_other(folder, leaf, [*_names(named, where), above])
        return None
    if leaf.entry is not None and not leaf.entry.own:
        raise InputError(
            f"{folder.root}: a group gives {leaf.name}, a task of lm-eval's own, other data; write a task of the folder"
        )
    if not _names(named, where) and above:
        named = f"{above}/**/*"
    if not named:
        raise InputError(f"{where}: dataset_path {builder} needs dataset_kwargs: {{data_files: FILE}}")
    splits = named if isinstance(named, dict) else {"train": named}
    return {
        str(split): list(chain.from_iterable(_matches(folder, leaf, one, where) for one in _names(some, where)))
        for split, some in splits.items()
    }


def _check_other(folder: TaskFolder, leaf: Leaf, within: list[str | None]) -> None:
    """Raises InputError for a `dataset_path` that is neither a folder nor a data set of the hub, and for files that are not
    `within` it: no identity covers them."""
    name, where = leaf.setting("dataset_path"), folder.place(leaf, "dataset_path")
    if not isinstance(name, str):
        raise InputError(f"{where}: dataset_path: expected a text, but got {name!r}")
    if _URL.match(name):
        raise InputError(f"{where}: dataset_path {name}: no data from the network by URL; put them into {folder.root}")
    if data_folder(folder, leaf) is None:
        from datasets.packaged_modules import _PACKAGED_DATASETS_MODULES  # imports pandas

        if name in _PACKAGED_DATASETS_MODULES or name in _OTHER_BUILDERS:  # `pandas` unpickles, which runs code
            raise InputError(f"{where}: dataset_path {name}: a task reads local files as {', '.join(BUILDERS)}")
    for one in within:
        if one is not None and (_URL.match(one) or Path(one).is_absolute() or ".." in Path(one).parts):
            raise InputError(
                f"{folder.place(leaf, 'dataset_kwargs')}: {one} is outside the data set {name}; a task of a data set reads "
                f"only files of it, and other files with a dataset_path of {', '.join(BUILDERS)}"
            )


def outside(folder: TaskFolder) -> Iterator[tuple[str, Path]]:
    """Data files elsewhere that tasks name by absolute paths; they are numbered, since the YAML has their names."""
    listed = [("", path) for path in _literal(folder)]  # first, whatever the rest: keys of earlier sweeps depend on it
    known = {path for _, path in listed}
    listed += [one for one in dict.fromkeys(_elsewhere(folder)) if one[1] not in known]
    for number, (name, path) in enumerate(listed):
        yield f"outside/{number:06}{name}", path


def _literal(folder: TaskFolder) -> Iterator[Path]:
    kwargs = [entry.config.get("dataset_kwargs") for entry in folder.entries.values()]
    named = [one.get("data_files") for one in kwargs if isinstance(one, dict)]
    for value in named:
        for one in chain.from_iterable(map(_listed, value.values())) if isinstance(value, dict) else _listed(value):
            path = Path(str(one))
            if path.is_absolute() and path.is_file():
                yield path


def _elsewhere(folder: TaskFolder) -> Iterator[tuple[str, Path]]:
    """("/name within a data folder", file) of what all tasks read and the folder does not hold."""
    for name in folder.entries:
        try:
            for leaf in folder.leaves(name):
                files = data_files(folder, leaf)
                place = data_folder(folder, leaf)
                for file in chain.from_iterable(files.values()) if files is not None else ():
                    if not folder.pinned(file):
                        yield "", file
                if place is not None and not place.is_relative_to(folder.root):
                    found = sorted(file for file in place.rglob("*") if file.is_file())
                    yield from ((f"/{one}", file) for file in found if not hidden(one := file.relative_to(place)))
        except InputError:  # a task that cannot be used reads nothing; a role that names it is refused
            continue


def _matches(folder: TaskFolder, leaf: Leaf, pattern: str, where: str) -> list[Path]:
    if _URL.match(pattern):
        raise InputError(f"{where}: data_files {pattern}: no data from the network; put the file into {folder.root}")
    path = local(pattern, where)
    if path.is_absolute():
        found = _glob(Path(path.anchor), str(path.relative_to(path.anchor)))
    else:
        found = next((some for above in folder.search_path(leaf) if (some := _glob(above, pattern))), [])
        for file in (file for file in found if file.is_file() and not folder.pinned(file)):
            why = HIDDEN if file.resolve().is_relative_to(folder.root) else f"{file} is {_OUTSIDE}"
            raise InputError(f"{where}: data_files {pattern}: {why}")
    if not (found := [file for file in found if file.is_file()]):
        raise InputError(f"{where}: data_files {pattern}: no such file in {folder.root}")
    return found


def _glob(above: Path, pattern: str) -> list[Path]:
    file = above / pattern  # a path that exists is never a pattern
    if file.is_file():
        return [file]
    found = sorted(above.glob(pattern))
    dotted = any(part.startswith(".") for part in Path(pattern).parts)
    return found if dotted else [one for one in found if not hidden(one.relative_to(above))]


def _names(value: Any, where: str) -> list[str]:
    """The names of `data_files`: a text, a list, or one of these by split. Raises InputError for anything else."""
    every = chain.from_iterable(map(_listed, value.values())) if isinstance(value, dict) else _listed(value)
    names = list(every)
    if (isinstance(value, dict) and not all(value.values())) or not all(isinstance(one, str) and one for one in names):
        raise InputError(f"{where}: data_files: expected a file, a list of files, or one of these by split, but got {value!r}")
    return names


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]
