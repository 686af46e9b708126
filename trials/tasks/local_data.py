"""Local data files of a folder's tasks: found beside the task's file, whatever the working folder."""

import re
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

from trials.errors import InputError
from trials.ledger.storage import local
from trials.tasks.folder import Leaf, TaskFolder

BUILDERS = ("json", "csv", "parquet", "arrow", "text")
"""Values of `dataset_path` that read local files."""
_OTHER_BUILDERS = ("pandas", "sql", "spark", "generator", "webdataset", "xml", "hdf5")  # `pandas` unpickles, which runs code
_URL = re.compile(r"[a-z0-9+]+://")


def data_folder(folder: TaskFolder, leaf: Leaf) -> Path | None:
    """The folder that `dataset_path` names relative to the task's file; None where it names another place."""
    name = leaf.setting("dataset_path")
    if not isinstance(name, str) or name in BUILDERS:
        return None
    places = (above / name for above in folder.search_path(leaf))
    return next((place.resolve() for place in places if place.is_dir()), None)


def here(folder: TaskFolder, leaf: Leaf) -> bool:
    """Whether the task's data are local files that its YAML names."""
    return leaf.setting("dataset_path") in BUILDERS or data_folder(folder, leaf) is not None


def data_files(folder: TaskFolder, leaf: Leaf) -> dict[str, list[Path]] | None:
    """Local data files by split, sorted within a pattern; None for a task whose data are not local files.

    Relative names are searched beside the task's file, then beside the files that it includes, then in the folder. Raises
    InputError for a file that is not there, or that only a network has.
    """
    builder, kwargs = leaf.setting("dataset_path"), leaf.setting("dataset_kwargs")
    if builder in _OTHER_BUILDERS:
        where = folder.place(leaf, "dataset_path")
        raise InputError(f"{where}: dataset_path {builder}: a task reads local files as {', '.join(BUILDERS)}")
    if builder not in BUILDERS:
        return None
    where, kwargs = folder.place(leaf, "dataset_kwargs"), kwargs if isinstance(kwargs, dict) else {}
    named = kwargs.get("data_files")
    if named is None and kwargs.get("data_dir"):
        named = f"{kwargs['data_dir']}/**/*"
    if not named:
        raise InputError(f"{where}: dataset_path {builder} needs dataset_kwargs: {{data_files: FILE}}")
    splits = named if isinstance(named, dict) else {"train": named}
    return {
        str(split): list(chain.from_iterable(_matches(folder, leaf, str(one), where) for one in _listed(some)))
        for split, some in splits.items()
    }


def outside(folder: TaskFolder) -> Iterator[tuple[str, Path]]:
    """Data files that tasks name by absolute paths; they are numbered, since the YAML has their names."""
    kwargs = [entry.config.get("dataset_kwargs") for entry in folder.entries.values()]
    named = [one.get("data_files") for one in kwargs if isinstance(one, dict)]
    every = chain.from_iterable(
        chain.from_iterable(map(_listed, n.values())) if isinstance(n, dict) else _listed(n) for n in named
    )
    for number, path in enumerate(path for path in (Path(str(one)) for one in every) if path.is_absolute() and path.is_file()):
        yield f"outside/{number:06}", path


def _matches(folder: TaskFolder, leaf: Leaf, pattern: str, where: str) -> list[Path]:
    if _URL.match(pattern):
        raise InputError(f"{where}: data_files {pattern}: no data from the network; put the file into {folder.root}")
    path = local(pattern, where)
    if path.is_absolute():
        found = [path] if path.is_file() else sorted(Path(path.anchor).glob(str(path.relative_to(path.anchor))))
    else:
        found = next((some for above in folder.search_path(leaf) if (some := _glob(above, pattern))), [])
        if strangers := [file for file in found if not _within(file, folder.root)]:
            raise InputError(
                f"{where}: data_files {pattern}: {strangers[0]} is outside the task folder, which alone travels to a cluster; "
                "put it inside, or give its absolute path, which every node then needs"
            )
    if not (found := [file for file in found if file.is_file()]):
        raise InputError(f"{where}: data_files {pattern}: no such file in {folder.root}")
    return found


def _within(file: Path, root: Path) -> bool:
    return file.resolve().is_relative_to(root) or file.is_symlink()  # a link is copied as the file behind it


def _glob(above: Path, pattern: str) -> list[Path]:
    file = above / pattern  # a path that exists is never a pattern
    return [file] if file.is_file() else sorted(above.glob(pattern))


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]
