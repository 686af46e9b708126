"""A folder of lm-eval tasks (`eval.ROLE.include`), read without running any of its code.

lm-eval's own index skips a file that it cannot parse and names no lines. This one refuses it, and knows the place of every
key and of every function that a task would run.
"""

import difflib
import hashlib
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from trials.errors import InputError
from trials.hub import fingerprint
from trials.ledger.storage import local
from trials.tasks.own_code import shipped
from trials.tasks.task_yaml import Function, parse

GROUP_KEYS = frozenset({"group", "group_alias", "task", "aggregate_metric_list", "metadata"})
"""Keys of a group itself (lm-eval's GroupConfig). Its other keys override those of its members."""
HIDDEN = "hidden files are neither pinned nor copied to a cluster; give the file a name without a dot at its beginning"
_CACHES = ("__pycache__", ".ipynb_checkpoints")


@dataclass(frozen=True)
class Entry:
    """A task, a group of tasks, or a tag, of a folder or of lm-eval's own index."""

    name: str
    kind: Literal["task", "group", "tag"]
    file: Path | None = None
    config: Mapping[str, Any] = field(default_factory=dict)
    """Its file with the files that it includes; functions are text (Function)."""
    members: tuple[str, ...] = ()
    """The tasks of a tag."""
    own: bool = False
    """Whether it is of a folder."""


@dataclass(frozen=True)
class Leaf:
    """A single task, and what the groups around it override."""

    name: str
    entry: Entry | None
    """None for a task that a group defines itself."""
    overrides: Mapping[str, Any]

    def setting(self, key: str) -> Any:
        config = self.entry.config if self.entry is not None else {}
        return {**config, **self.overrides}.get(key)


Find = Callable[[str], Entry | None]
Read = Callable[[Entry], Mapping[str, Any]]


def _config(entry: Entry) -> Mapping[str, Any]:
    return entry.config


def leaves(name: str, find: Find, read: Read = _config) -> list[Leaf]:
    """The single tasks of a task, group or tag, as lm-eval's TaskFactory builds them.

    `read` returns the config of a group. Raises InputError for a member that `find` does not know.
    """
    try:
        return list(_leaves(name, find, read, {}))
    except RecursionError:
        raise InputError(f"the group {name!r} contains itself") from None


def _leaves(name: str, find: Find, read: Read, overrides: Mapping[str, Any]) -> Iterator[Leaf]:
    entry = find(name)
    if entry is None:
        raise InputError(f"there is no task {name!r}")
    if entry.kind == "task":
        yield Leaf(name, entry, overrides)
    elif entry.kind == "tag":
        for member in entry.members:
            yield from _leaves(member, find, read, overrides)
    else:
        config = read(entry)
        inherited = {key: value for key, value in config.items() if key not in GROUP_KEYS}
        yield from _members(name, config, find, read, {**inherited, **overrides})


def _members(group: str, config: Mapping[str, Any], find: Find, read: Read, overrides: Mapping[str, Any]) -> Iterator[Leaf]:
    members = config.get("task") or []
    for member in members if isinstance(members, list) else [members]:
        own = {"task": member} if isinstance(member, str) else dict(member)
        if "group" in own:
            inner = own.pop("group")
            if find(inner) is not None:
                yield from _leaves(inner, find, read, {**overrides, **own})
            else:  # a group that is defined within this one
                inherited = {key: value for key, value in own.items() if key not in GROUP_KEYS}
                yield from _members(f"{group}::{inner}", own, find, read, {**inherited, **overrides})
            continue
        name = own.pop("task", None)
        if name is not None and find(name) is not None:
            yield from _leaves(name, find, read, {**overrides, **own})
        elif name is not None and own:
            yield Leaf(f"{group}::{name}", None, {**overrides, **own})
        else:
            raise InputError(f"the group {group!r} names a task {name!r}, which does not exist")


@dataclass(frozen=True)
class _File:
    """A YAML file with what it includes."""

    config: dict[str, Any]
    places: dict[str, str]
    """By top-level key, "file:line"."""
    functions: tuple[Function, ...]
    """lm-eval imports them all, overridden ones too."""
    folders: tuple[Path, ...]
    """The file's own folder, then those of the files that it includes."""


class TaskFolder:
    """The tasks, groups and tags of a folder.

    Raises InputError for a folder without tasks, a file that is no YAML, and a link to YAML or code elsewhere.
    """

    def __init__(self, root: Path):
        self.root = root.resolve()
        self._pinned = files(self.root)
        self._refuse_links()
        self.entries: dict[str, Entry] = {}
        self._files: dict[Path, _File] = {}
        self._tags: dict[str, list[str]] = {}
        for file in sorted(path for path in self._pinned.values() if path.suffix == ".yaml"):
            data = parse(file).data
            if isinstance(data, dict) and {"task", "group", "class", "include"} & data.keys():
                self._add(file)
        for tag, names in self._tags.items():
            # lm-eval, too, prefers a task or group of the tag's name
            self.entries.setdefault(tag, Entry(tag, "tag", members=tuple(sorted(names)), own=True))
        if not self.entries:
            others = sorted(root.rglob("*.yml"))
            hint = f"; lm-eval reads *.yaml: rename {others[0].name}" if others else ""
            raise InputError(f"{root}: no *.yaml file in this folder names a task or a group{hint}")

    def _refuse_links(self) -> None:
        for path in self._pinned.values():
            # lm-eval searches a file's functions beside the file behind the link
            if path.suffix in (".yaml", ".py") and not path.resolve().is_relative_to(self.root):
                raise InputError(
                    f"{path}: is a link to {path.resolve()}, outside the task folder; put a copy of that file there"
                )

    def _add(self, file: Path) -> None:
        read = self._read(file, ())
        key: Literal["task", "group"] = "group" if "group" in read.config and "class" not in read.config else "task"
        name = read.config.get(key)
        if name is None:  # a template that other files include
            return
        if not isinstance(name, str):
            raise InputError(f"{read.places[key]}: a {key}'s name is a text, but got {name!r}")
        _check_types(read, key)
        if name in self.entries:
            raise InputError(f"{read.places[key]}: {name!r} is already the name of {self.entries[name].file}")
        self.entries[name] = Entry(name, key, file, read.config, own=True)
        tags = read.config.get("tag") if key == "task" else None
        for tag in tags if isinstance(tags, list) else [tags] if tags else []:
            self._tags.setdefault(tag, []).append(name)

    def _read(self, file: Path, above: tuple[Path, ...]) -> _File:
        """The file with its includes, as lm-eval merges them: later ones win, and the file's own keys over all."""
        if file in self._files:
            return self._files[file]
        if file in above:
            raise InputError(f"{file}: includes itself, by way of {', '.join(path.name for path in above)}")
        data, lines, functions = parse(file)
        if not isinstance(data, dict):
            raise InputError(f"{file}:1: expected keys and values")
        places: dict[str, str] = {}
        merged: dict[str, Any] = {}
        folders, found = [file.parent], list(functions)
        for key in data:
            if not isinstance(key, str):
                raise InputError(f"{file}:{lines.get(str(key), 1)}: a key of a task is a text, but got {key!r}")
        named = data.get("include") or []
        for name in named if isinstance(named, list) else [named]:
            part = self._read(self._included(file, str(name), lines["include"]), (*above, file))
            merged |= {key: value for key, value in part.config.items() if key != "task_list"}
            places |= part.places
            found += part.functions
            folders += part.folders
        merged |= {key: value for key, value in data.items() if key != "include"}
        places |= {key: f"{file}:{line}" for key, line in lines.items()}
        read = _File(merged, places, tuple(found), tuple(dict.fromkeys(folders)))
        self._files[file] = read
        return read

    def _included(self, file: Path, name: str, line: int) -> Path:
        path, behind = _forms(file.parent / name)
        if not behind.is_relative_to(self.root):
            raise InputError(
                f"{file}:{line}: includes {name}, outside the task folder {self.root}, which alone is pinned and travels to a "
                "cluster; copy that file into the folder"
            )
        if not path.is_file():
            raise InputError(f"{file}:{line}: includes {name}, but there is no file {path}")
        if not self.pinned(path):
            raise InputError(f"{file}:{line}: includes {name}: {HIDDEN}")
        return path

    def pinned(self, path: Path) -> bool:
        """Whether the file is one of those that are in the folder's checksum and travel to a cluster."""
        return any(
            one.is_relative_to(self.root) and one.relative_to(self.root).as_posix() in self._pinned for one in _forms(path)
        )

    def find(self, name: str) -> Entry | None:
        return self.entries.get(name)

    def check_name(self, name: str) -> None:
        """Raises InputError for a name that the folder does not have."""
        if name not in self.entries:
            near = difflib.get_close_matches(name, self.entries, n=1)
            known = sorted(self.entries)
            shown = ", ".join(known[:8]) + (", ..." if len(known) > 8 else "")
            raise InputError(f"{self.root} has no task {name!r}; {f'did you mean {near[0]!r}? ' if near else ''}it has {shown}")

    def leaves(self, name: str) -> list[Leaf]:
        """The single tasks of a name. A member that the folder does not have, lm-eval's own, has an entry without a file."""
        self.check_name(name)
        return leaves(name, lambda one: self.find(one) or Entry(one, "task"))

    def code(self, name: str) -> str | None:
        """ "file:line: !function utils.f", the first code that a task, group or tag would run; None without any."""
        files: list[Path] = []

        def seen(one: str) -> Entry | None:
            known = self.find(one)
            if known is not None and known.file is not None:
                files.append(known.file)
            return known or Entry(one, "task")

        self.check_name(name)
        leaves(name, seen)
        for file in files:
            read = self._files[file]
            for function in read.functions:
                if shipped(function) is None:
                    return f"{function.place}: !function {function}"
            if "class" in read.config:
                return f"{read.places['class']}: class: {read.config['class']}"
        return None

    def place(self, leaf: Leaf, key: str) -> str:
        """ "file:line" of a key of a task, its file where the key stands nowhere, or the folder for a task without a file."""
        file = leaf.entry.file if leaf.entry is not None else None
        return str(self.root) if file not in self._files else self._files[file].places.get(key, str(file))

    def search_path(self, leaf: Leaf) -> tuple[Path, ...]:
        """The folders in which a relative name of the task is searched, in this order."""
        file = leaf.entry.file if leaf.entry is not None else None
        return (*(self._files[file].folders if file is not None else ()), self.root)


def _check_types(read: _File, key: str) -> None:
    """Raises InputError for a tag or a member of a group that is no name."""
    config = read.config
    tags = config.get("tag")
    if not isinstance(tags, str | None) and not _all(str, tags):
        raise InputError(f"{read.places['tag']}: a tag is a text, or a list of texts, but got {tags!r}")
    if key == "group":
        _check_members(config.get("task"), read.places.get("task", read.places["group"]))


def _check_members(members: Any, where: str) -> None:
    if not isinstance(members, str | None) and not _all(str | dict, members):
        raise InputError(f"{where}: a group's tasks are names, or keys and values, but got {members!r}")
    for member in members if isinstance(members, list) else ():
        if not isinstance(member, dict):
            continue
        if "group" not in member and not isinstance(member.get("task"), str):
            raise InputError(f"{where}: a member of a group names a task by a text, but got {member.get('task')!r}")
        if not isinstance(member.get("group", ""), str):
            raise InputError(f"{where}: a group's name is a text, but got {member['group']!r}")
        if "group" in member:
            _check_members(member.get("task"), where)


def _all(kind: Any, values: Any) -> bool:
    return isinstance(values, list) and all(isinstance(one, kind) for one in values)


def _forms(path: Path) -> tuple[Path, Path]:
    """A path without `..`, and the file behind it: a link travels as a copy of the file behind it."""
    return Path(os.path.normpath(path)), path.resolve()


def hidden(path: Path) -> bool:
    """Whether a path relative to a folder is no part of it."""
    return any(part.startswith(".") or part in _CACHES for part in path.parts)


def files(root: Path) -> dict[str, Path]:
    """The files of a task folder by relative path, without hidden ones and Python's caches."""
    found = {path.relative_to(root): path for path in root.rglob("*") if path.is_file()}
    return {name.as_posix(): path for name, path in found.items() if not hidden(name) and name.suffix != ".pyc"}


def shipped_name(include: str) -> str:
    """Name of the folder that carries the task folder `include` to a cluster."""
    return f"slimsweep-tasks-{hashlib.sha256(include.encode()).hexdigest()[:16]}"


def located(include: str) -> Path:
    """The task folder on this machine: the copy that travelled with the command, else the folder itself."""
    carried = (Path(place) / shipped_name(include) for place in sys.path if place)
    return next((place for place in carried if place.is_dir()), local(include, "include")).resolve()


def opened(include: str) -> TaskFolder:
    """The tasks of `include`. Raises InputError, one line, for a folder that is not there or is no task folder."""
    root = located(include)
    if not root.is_dir():
        resolved = f" ({root})" if str(root) != include else ""
        why = "this is a file" if root.exists() else f"there is no such folder{resolved}"
        if root.is_relative_to(fingerprint.cache("questions").resolve()):
            raise InputError(f"{include}: {why}; it was made of a file of questions: use the config that names that file")
        raise InputError(f"{include}: {why}; name a folder of lm-eval tasks")
    found = ((name, path.stat()) for name, path in files(root).items())
    return _opened(root, frozenset((name, stat.st_mtime_ns, stat.st_size) for name, stat in found))


@lru_cache(maxsize=32)
def _opened(root: Path, state: frozenset[tuple[str, int, int]]) -> TaskFolder:
    """`state` changes with the folder's files."""
    return TaskFolder(root)
