"""Checks of a task's `metric_list` as it is written. Nothing of the folder runs."""

import ast
import difflib
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from trials.errors import InputError
from trials.explain import nearest
from trials.tasks.folder import Leaf, TaskFolder, opened
from trials.tasks.task_yaml import Function

KEYS = ("metric", "aggregation", "higher_is_better", "hf_evaluate")
"""lm-eval's own keys of an entry; it hands all others to the metric."""
_ALIKE = 0.75  # of difflib's ratio; aggregation and aggregate have 0.8
_SYNONYMS = {"avg": "mean", "average": "mean"}


def check(folder: TaskFolder, leaf: Leaf) -> None:
    """Raises InputError for a misspelt key of an entry, and for an aggregation that is missing or unknown."""
    listed = leaf.setting("metric_list")
    if listed is None:
        return
    where = f"{folder.place(leaf, 'metric_list')}: task {leaf.name}"
    if not isinstance(listed, list) or not all(isinstance(one, dict) for one in listed):
        raise InputError(
            f"{where}: metric_list is a list of entries such as {{metric: acc, aggregation: mean}}, but got {listed!r}"
        )
    for entry in listed:
        for key in entry:
            near = difflib.get_close_matches(str(key), KEYS, n=1, cutoff=_ALIKE)
            if key not in KEYS and near and near[0] not in entry:  # another key is an argument of the metric
                raise InputError(f"{where}: lm-eval knows no key {key!r} of a metric; did you mean {near[0]!r}?")
        if "metric" not in entry:
            raise InputError(f"{where}: an entry of metric_list has no key 'metric'; it has {', '.join(map(repr, entry))}")
        _check_aggregation(where, entry)


def _check_aggregation(where: str, entry: Mapping[str, Any]) -> None:
    from trials.tasks.measures import AGGREGATION_REGISTRY, METRIC_AGGREGATION_REGISTRY  # lm-eval takes a while to import

    metric, given = _name(entry["metric"]), entry.get("aggregation")
    if given is None:
        if "aggregation" in entry or metric not in METRIC_AGGREGATION_REGISTRY:
            raise InputError(f"{where}: the metric {metric} has no aggregation; write aggregation: mean into its entry")
    elif not isinstance(given, Function) and given not in list(AGGREGATION_REGISTRY):
        known = list(AGGREGATION_REGISTRY)
        meant = _SYNONYMS.get(str(given)) or nearest(str(given), known)
        hint = f" did you mean {meant}?" if meant else ""
        raise InputError(f"{where}: metric {metric}: lm-eval has no aggregation {given!r};{hint} it has {', '.join(known)}")


def names(leaf: Leaf) -> list[str] | None:
    """The names of the task's metrics; None where only its code knows them."""
    listed = leaf.setting("metric_list")
    if not isinstance(listed, list) or leaf.setting("class") is not None:
        return None
    found = [_certain(entry.get("metric")) for entry in listed]
    return None if None in found else [name for name in found if name is not None]


def unknown(leaf: Leaf, metric: str) -> str | None:
    """A sentence for a metric that the task certainly does not have."""
    known = names(leaf)
    if known is None or metric in known:
        return None
    near = nearest(metric, known)
    hint = f" did you mean {near!r}?" if near else ""
    return f"task {leaf.name} has no metric {metric!r};{hint} it measures {', '.join(known)}"


def missing(given: Mapping[str, Any]) -> str | None:
    """A sentence for a role on a folder that is written without its task or its metric, with what the folder or the task has.

    None where nothing is missing, or nothing is known of the folder.
    """
    key = next((key for key in ("task", "metric") if key not in given), None)
    if key is None or "preset" in given or not isinstance(given.get("include"), str):
        return None
    try:
        folder = opened(given["include"])
        if key == "task":
            return f"missing key 'task'; {folder.root} has {', '.join(sorted(folder.entries))}"
        tasks = given["task"] if isinstance(given["task"], list) else [given["task"]]
        found = [names(leaf) for task in tasks for leaf in folder.leaves(task)]
    except (InputError, TypeError):  # reported once the role is complete
        return None
    known = dict.fromkeys(name for some in found for name in some or ())
    return f"missing key 'metric'; {'+'.join(tasks)} measures {', '.join(known)}" if known else None


def _name(metric: Any) -> str:
    return metric.rpartition(".")[2] if isinstance(metric, Function) else str(metric)


def _certain(metric: Any) -> str | None:
    """The name under which lm-eval lists a metric: of a function its `__name__`, which only a plain `def` shows."""
    if not isinstance(metric, Function):
        return metric if isinstance(metric, str) else None
    name = _name(metric)
    return name if metric.file.is_file() and name in _plain_functions(metric.file, metric.file.stat().st_mtime_ns) else None


@lru_cache(maxsize=256)
def _plain_functions(file: Path, _changed: int) -> frozenset[str]:
    return frozenset(_defined(file))


def _defined(file: Path) -> Iterator[str]:
    try:
        body = ast.parse(file.read_bytes()).body
    except (SyntaxError, ValueError):  # its import will say so
        return
    for node in body:
        if isinstance(node, ast.FunctionDef) and not node.decorator_list:
            yield node.name
