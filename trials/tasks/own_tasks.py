"""Checks of a role's own tasks: those of the folder `include`. Nothing of the folder runs."""

import difflib
from collections.abc import Collection, Container, Iterator
from contextlib import contextmanager
from typing import Any

from trials.errors import InputError, StorageFailed
from trials.evaluation_section import Evaluation
from trials.tasks import local_data, metric_list
from trials.tasks.failures import inside, told
from trials.tasks.folder import Leaf, TaskFolder, opened


def problems(evaluation: Evaluation) -> Iterator[tuple[str, str]]:
    """(key of the role, what is wrong) for a folder that cannot be used, a task that it lacks, code without trust, and data
    that are not there. Nothing for a role without a folder."""
    if evaluation.include is None:
        return
    try:
        folder = opened(evaluation.include)
    except InputError as error:
        yield "include", str(error)
        return
    for name in evaluation.tasks:
        try:
            leaves = folder.leaves(name)
        except InputError as error:
            yield "task", str(error)
            continue
        code = folder.code(name)
        if code is not None and not evaluation.trust_code:
            yield "include", f"{code}: task {name} would run this code; the role permits it with trust_code: true"
        try:
            for leaf in leaves:
                local_data.data_files(folder, leaf)
                _check_prompt(folder, leaf)
                metric_list.check(folder, leaf)
                if text := metric_list.unknown(leaf, evaluation.metric):
                    yield "metric", text
        except InputError as error:
            yield "include", str(error)


def check(evaluation: Evaluation) -> None:
    """Raises InputError, one line, for the first of the `problems` of its tasks. The metric is checked with the built tasks."""
    for key, text in problems(evaluation):
        if key != "metric":
            raise InputError(text)


def _check_prompt(folder: TaskFolder, leaf: Leaf) -> None:
    """Raises InputError for a prompt from a file, which lm-eval reads from the working directory: nothing pins it."""
    named = leaf.setting("use_prompt")
    if isinstance(named, str) and ".yaml" in named:
        raise InputError(
            f"{folder.place(leaf, 'use_prompt')}: use_prompt {named}: a file of prompts is not pinned; write its texts into "
            "doc_to_text and doc_to_target"
        )


def check_keys(folder: TaskFolder, leaf: Leaf, config: dict[str, Any], known: Collection[str]) -> None:
    """Raises InputError for a key that lm-eval does not know. A Python class may know others."""
    for key in () if "class" in config else config:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise InputError(f"{folder.place(leaf, key)}: task {leaf.name}: lm-eval knows no key {key!r}{hint}")


def check_metrics(folder: TaskFolder, leaf: Leaf, config: dict[str, Any], known: Container[str]) -> None:
    """Raises InputError for a metric that lm-eval does not have: the library `evaluate` would run code of its name, local or of
    the hub."""
    listed = config.get("metric_list") if config.get("process_results") is None else None
    for one in listed if isinstance(listed, list) else ():
        metric = one.get("metric") if isinstance(one, dict) else None
        if isinstance(metric, str) and (metric not in known or one.get("hf_evaluate") is True):
            raise InputError(
                f"{folder.place(leaf, 'metric_list')}: task {leaf.name}: lm-eval has no metric {metric!r} of its own, so the "
                "library evaluate would run code of that name; the role permits it with trust_code: true"
            )


@contextmanager
def explained(folder: TaskFolder | None, leaf: Leaf, but: tuple[type[Exception], ...] = ()) -> Iterator[None]:
    """Turns an error of a folder's task into an InputError, one line with the file; those of the types `but` pass."""
    try:
        yield
    except Exception as error:
        if folder is None or isinstance(error, (InputError, StorageFailed, *but)):
            raise
        cause = told(error, folder.root)
        frames = inside(cause, folder.root)
        where = f"{frames[-1].filename}:{frames[-1].lineno}" if frames else folder.place(leaf, "")
        reason = " ".join(str(cause).split())[:200]
        raise InputError(f"{where}: task {leaf.name} cannot be built: {type(cause).__name__}: {reason}") from error


def template_places(folder: TaskFolder, leaf: Leaf) -> dict[str, str]:
    """The texts of a task's config that may be templates, each with its "file:line: key"; "and" where several keys have one."""
    config = {**(leaf.entry.config if leaf.entry is not None and leaf.entry.own else {}), **leaf.overrides}
    found: dict[str, str] = {}
    for key, value in config.items():
        for name, text in _texts(key, value):
            place = f"{folder.place(leaf, key)}: {name}"
            found[text] = f"{found[text]} and {place}" if text in found else place
    return found


def _texts(name: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield name, value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from _texts(f"{name}.{key}", inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _texts(name, inner)


def from_hub(folder: TaskFolder, leaf: Leaf) -> str | None:
    """The data set of a folder's task by the name that the hub resolves; None for local data, and for data that code makes."""
    name = leaf.setting("dataset_path")
    if not isinstance(name, str) or name in local_data.BUILDERS or local_data.data_folder(folder, leaf):
        return None
    return name


def datasets(include: str, name: str) -> tuple[list[str], list[str]]:
    """Data sets of the hub that a task, group or tag reads, and the names of its members that are lm-eval's own."""
    folder = opened(include)
    leaves = folder.leaves(name)
    own = (leaf for leaf in leaves if leaf.entry is None or leaf.entry.own)
    names = sorted({dataset for leaf in own if (dataset := from_hub(folder, leaf))})
    return names, sorted({leaf.name for leaf in leaves if leaf.entry is not None and not leaf.entry.own})
