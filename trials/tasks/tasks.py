"""lm-eval's tasks: builds them with data from the hub, and checks a role's settings against them.

Imports neither torch nor transformers: a sweep checks its inputs before any worker starts.
"""

import copy
import difflib
import logging
from collections.abc import Iterator
from functools import cache, cached_property
from itertools import islice
from pathlib import Path
from typing import Any

from lm_eval.models.utils import normalize_gen_kwargs
from lm_eval.tasks import TaskManager

from trials.errors import InputError
from trials.hub.hub import TASK_FOLDERS, Hub, check_commit, commit_of
from trials.spec import Evaluation

for _name in ("lm_eval", "lm_eval.api.task"):
    logging.getLogger(_name).setLevel(logging.ERROR)  # they warn about defaults of every task


DEFAULT_RESPONSE_TOKENS = 256
"""Tokens of a response for a task without a limit: lm-eval's HFLM.max_gen_toks."""

_Content = tuple[tuple[str, str], ...]  # an evaluation's content


@cache
def _stock_tasks() -> TaskManager:
    """lm-eval's own tasks. Their index takes ten seconds to build."""
    return TaskManager()


class Tasks:
    """lm-eval's tasks, each built once a process, with the data that `hub` resolves."""

    def __init__(self, hub: Hub):
        self.hub = hub
        self._built: dict[tuple[str, int | None, str, _Content], Any] = {}

    @cached_property
    def _bundled(self) -> TaskManager:
        return TaskManager(include_path=[str(folder) for folder in TASK_FOLDERS], include_defaults=False)

    def bundled(self, name: str) -> bool:
        """Whether the task is part of the package."""
        return name in self._bundled.task_index

    def at_hand(self, name: str) -> bool:
        """Whether the task is part of the package and its data are local: building it downloads nothing."""
        return self.bundled(name) and all(map(self.hub.has, self.datasets(name)))

    def _manager(self, name: str) -> TaskManager:
        """The manager of a task; lm-eval's own comes last, because it is slow."""
        if self.bundled(name):
            return self._bundled
        stock = _stock_tasks()
        if name not in stock.task_index:
            near = difflib.get_close_matches(name, [*self._bundled.all_tasks, *stock.all_tasks], n=3)
            raise InputError(f"eval: lm-eval has no task {name!r}" + (f"; near: {', '.join(near)}" if near else ""))
        return stock

    def _leaves(self, manager: TaskManager, name: str) -> list[str]:
        """The single tasks of a task, group or tag."""
        from lm_eval.tasks._index import Kind

        entry = manager.task_index[name]
        if entry.kind in (Kind.TASK, Kind.PY_TASK):
            return [name]
        members = entry.tags if entry.kind is Kind.TAG else (entry.cfg or {}).get("task", [])
        names = [member if isinstance(member, str) else member["task"] for member in members]
        return [leaf for member in names for leaf in self._leaves(manager, member)]

    def datasets(self, name: str) -> set[str]:
        """The data sets of the single tasks of `name`; the task's name for a task without one."""
        from lm_eval.tasks._yaml_loader import load_yaml

        manager = self._manager(name)
        paths = {leaf: manager.task_index[leaf].yaml_path for leaf in self._leaves(manager, name)}
        return {(load_yaml(path) if path else {}).get("dataset_path", leaf) for leaf, path in paths.items()}

    def build(self, evaluation: Evaluation) -> dict[str, Any]:
        """The lm-eval tasks of a role by name. Raises InputError when one cannot be built."""
        built = {}
        for name in evaluation.tasks:
            manager = self._manager(name)
            for leaf in self._leaves(manager, name):
                wanted = (leaf, evaluation.shots, evaluation.sampler, tuple(sorted(evaluation.content.items())))
                if wanted not in self._built:
                    self._built[wanted] = self._build(manager, *wanted)
                built[leaf] = self._built[wanted]
        return built

    def _build(self, manager: TaskManager, name: str, shots: int | None, sampler: str, content: _Content) -> Any:
        import datasets
        from lm_eval.tasks._yaml_loader import load_yaml

        path = manager.task_index[name].yaml_path
        config: dict[str, Any] = load_yaml(path) if path else {"task": name}
        if shots is not None:
            config["num_fewshot"] = shots
        if sampler != "stock":
            named = {"first_n": "first_n", "drawn": "default"}[sampler]
            config["fewshot_config"] = {**(config.get("fewshot_config") or {}), "sampler": named}
        dataset, commit = config.get("dataset_path"), None
        if dataset:
            self.hub.refuse_lookalike(f"task {name!r}", dataset)
            found = self.hub.dataset_arguments(dataset)
            config["dataset_path"] = found.pop("path")
            # pinned tasks read the commit of the pin, also after the branch has moved on
            if not self.hub.has(dataset) and (commit := commit_of(dict(content).get(dataset))):
                found["revision"] = commit
            config["dataset_kwargs"] = {**(config.get("dataset_kwargs") or {}), **found}
        try:
            task = manager.load([{**config, "task": name}])["tasks"][name]
        except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
            raise self.hub.missing(f"data set of task {name!r},", dataset or name, error) from error
        for rows in task.dataset.values() if commit else ():
            check_commit(f"task {name}: {dataset}", commit, rows)
        task.doc_iterator = _Documents(task)
        return task


class _Documents:
    """Replaces a task's doc_iterator, which reads all documents to return a few and searches a list for each number."""

    def __init__(self, task: Any):
        self._usual, self._all = task.doc_iterator, task.eval_docs
        self._known: dict[int, dict[str, Any]] = {}

    def __call__(
        self, *, rank: int = 0, limit: int | None = None, world_size: int = 1, samples: list[int] | None = None
    ) -> Iterator[tuple[int, Any]]:
        if not samples:
            return iter(self._usual(rank=rank, limit=limit, world_size=world_size))
        return islice(enumerate(map(self._document, sorted(samples))), rank, None, world_size)

    def _document(self, number: int) -> Any:
        if number not in self._known:
            self._known[number] = self._all[number]
        return copy.copy(self._known[number])  # a new one at each access, as a data set returns it


def measured(task: Any) -> list[str]:
    """The "metric,filter" names of a task, in lm-eval's order."""
    filters = [ensemble.name for ensemble in task._filters]
    return [f"{metric},{filter_name}" for filter_name in filters for metric in task._metric_fn_list]


def check(role: str, evaluation: Evaluation, tasks: Tasks) -> None:
    """Raises InputError for an unknown task, metric or filter of the role, or more documents than there are."""
    total = 0
    filters = [evaluation.filter, *([evaluation.flexible] if evaluation.flexible is not None else [])]
    for name, task in tasks.build(evaluation).items():
        total += len(task.eval_docs)
        _check_shots(role, name, task)
        for wanted in [f"{evaluation.metric},{one}" for one in filters]:
            if wanted not in measured(task):
                known = "; ".join(measured(task))
                raise InputError(f"eval.{role}: task {name} measures {known}; not {wanted} (metric,filter)")
    if evaluation.documents is not None and evaluation.documents > total:
        raise InputError(f"eval.{role}.documents: {evaluation.documents} requested, {'+'.join(evaluation.tasks)} has {total}")


def _check_shots(role: str, name: str, task: Any) -> None:
    shots, sampler = task.config.num_fewshot or 0, getattr(task, "sampler", None)
    if not shots or sampler is None:
        return
    own = task.fewshot_cfg.split == task.config.test_split  # then a prompt leaves out its own document
    rows = len(sampler.fewshot_docs()) - own
    if shots > rows:
        raise InputError(f"eval.{role}.shots: {shots} requested, task {name} has {rows} few-shot rows")


def check_room(role: str, evaluation: Evaluation, tasks: Tasks, longest: int) -> None:
    """Raises InputError where responses of a task leave no room for a prompt in the model's `longest` tokens."""
    for name, task in tasks.build(evaluation).items():
        if task.OUTPUT_TYPE != "generate_until":
            continue
        most = normalize_gen_kwargs(task.config.generation_kwargs, DEFAULT_RESPONSE_TOKENS)["max_gen_toks"]
        if most >= longest:
            raise InputError(
                f"eval.{role}: task {name} generates up to {most} tokens, but the base takes {longest}, the prompt included; "
                "take a task with shorter responses, or a base with more positions"
            )


def same_split(evaluation: Evaluation, dataset: str, config: str | None, split: str, tasks: Tasks) -> str | None:
    """The task of the role whose documents are exactly this split of this data set, if there is one."""
    for name, task in tasks.build(evaluation).items():
        tested = task.config.test_split or task.config.validation_split
        same_data = Path(tasks.hub.locate(dataset)) == Path(tasks.hub.locate(task.config.dataset_path or ""))
        # an omitted configuration may be the one that the task names
        same_config = config is None or task.config.dataset_name is None or config == task.config.dataset_name
        if same_data and same_config and tested in [part.partition("[")[0].strip() for part in split.split("+")]:
            return name
    return None
