"""lm-eval's tasks: builds them with data from the hub, and checks a role's settings against them.

Imports neither torch nor transformers: a sweep checks its inputs before any worker starts.
"""

import copy
import dataclasses
import difflib
import glob
import logging
from collections.abc import Hashable, Iterator, Mapping
from functools import cache, cached_property
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import datasets
import lm_eval.tasks
from lm_eval.api.registry import METRIC_REGISTRY
from lm_eval.config.task import TaskConfig
from lm_eval.models.utils import normalize_gen_kwargs
from lm_eval.tasks import TaskManager
from lm_eval.tasks._index import Kind
from lm_eval.tasks._yaml_loader import load_yaml

from trials.errors import InputError
from trials.evaluation_section import FOLDER
from trials.explain import nearest
from trials.hub.hub import TASK_FOLDERS, Hub, cache_of, check_commit, commit_of
from trials.ledger.outcomes import SHARES_SCALE
from trials.spec import Evaluation
from trials.tasks import local_data, own_code, own_tasks, templates
from trials.tasks.folder import Entry, Leaf, TaskFolder, leaves, opened
from trials.tasks.measures import measure, measured
from trials.tasks.metric_calls import Scores

templates.install()
datasets.disable_progress_bars()  # a refusal is one line
for _name in ("lm_eval", "lm_eval.api.task"):
    logging.getLogger(_name).setLevel(logging.ERROR)  # they warn about defaults of every task


DEFAULT_RESPONSE_TOKENS = 256
"""Tokens of a response for a task without a limit: lm-eval's HFLM.max_gen_toks."""

_GENERATED = TaskConfig(task="any").output_type
"""The output type of a task that names none."""
_MANAGER = TaskManager(include_defaults=False)
"""Builds a task from its config; its index is empty."""
_STOCK = Path(lm_eval.tasks.__file__).parent
_KEYS = frozenset(field.name for field in dataclasses.fields(TaskConfig))


@cache
def _stock_tasks() -> TaskManager:
    """lm-eval's own tasks. Their index takes ten seconds to build."""
    return TaskManager()


@cache
def _stock_folder(folder: Path) -> TaskManager:
    return TaskManager(include_path=[str(folder)], include_defaults=False)


def stock_manager(name: str) -> TaskManager:
    """A manager that knows lm-eval's own task `name`, where there is one.

    Most tasks lie in a folder that their name begins with, which is indexed in milliseconds. The parts of a group may lie
    anywhere.
    """
    words = name.split("_")
    for count in range(len(words), 0, -1):
        folder = _STOCK / "_".join(words[:count])
        if folder.is_dir() and name in (found := _stock_folder(folder)).task_index:
            return found if found.task_index[name].kind is Kind.TASK else _stock_tasks()
    return _stock_tasks()


class Tasks:
    """lm-eval's tasks, each built once a process, with the data that `hub` resolves."""

    def __init__(self, hub: Hub):
        self.hub = hub
        self._built: dict[Hashable, Any] = {}
        self._roles: dict[Hashable, dict[str, Any]] = {}

    @cached_property
    def _bundled(self) -> TaskManager:
        return TaskManager(include_path=[str(folder) for folder in TASK_FOLDERS], include_defaults=False)

    def bundled(self, name: str) -> bool:
        """Whether the task is part of the package."""
        return name in self._bundled.task_index

    def at_hand(self, evaluation: Evaluation) -> bool:
        """Whether the role's tasks and their data are local: building them downloads nothing, and needs no index of lm-eval."""
        if evaluation.include is None:
            return all(self.bundled(name) and all(map(self.hub.has, self.datasets(name))) for name in evaluation.tasks)
        folder = opened(evaluation.include)
        found = [leaf for name in evaluation.tasks for leaf in folder.leaves(name)]
        return all(local_data.here(folder, leaf) or self._here(folder, leaf) for leaf in found)

    def _here(self, folder: TaskFolder, leaf: Leaf) -> bool:
        dataset = own_tasks.from_hub(folder, leaf)
        return dataset is not None and self.hub.has(dataset)

    def _manager(self, name: str) -> TaskManager:
        """The manager of a task; lm-eval's own comes last, because it is slow."""
        if self.bundled(name):
            return self._bundled
        stock = stock_manager(name)
        if name not in stock.task_index:
            near = difflib.get_close_matches(name, [*self._bundled.all_tasks, *stock.all_tasks], n=3)
            raise InputError(f"eval: lm-eval has no task {name!r}" + (f"; near: {', '.join(near)}" if near else ""))
        return stock

    def _find(self, name: str) -> Entry | None:
        """A task, group or tag of the package or of lm-eval; None for a name that neither has."""
        manager = self._bundled if self.bundled(name) else stock_manager(name)
        return _entry(manager, name) if name in manager.task_index else None

    def leaves(self, name: str, folder: TaskFolder | None = None) -> list[Leaf]:
        """The single tasks of a task, group or tag. The names of a folder go before those of lm-eval.

        A group's functions are imported.
        """
        if folder is None:
            self._manager(name)
            return leaves(name, self._find, _with_functions)
        folder.check_name(name)
        return leaves(name, lambda one: folder.find(one) or self._find(one), _with_functions)

    def output_types(self, evaluation: Evaluation) -> list[str] | None:
        """What the role's tasks output, as their YAML says it; None where a Python class says it. Builds no task."""
        folder = opened(evaluation.include) if evaluation.include is not None else None
        found = [leaf for name in evaluation.tasks for leaf in self.leaves(name, folder)]
        if any(leaf.setting("class") is not None for leaf in found):
            return None
        return list(dict.fromkeys(leaf.setting("output_type") or _GENERATED for leaf in found))

    def datasets(self, name: str) -> set[str]:
        """The data sets of the single tasks of `name`; the task's name for a task without one."""
        return {leaf.setting("dataset_path") or leaf.name for leaf in self.leaves(name)}

    def build(self, evaluation: Evaluation) -> dict[str, Any]:
        """The lm-eval tasks of a role by name. Raises InputError when one cannot be built."""
        version = evaluation.content.get(FOLDER) or (evaluation.include and opened(evaluation.include))
        settings = (version, evaluation.shots, evaluation.sampler, *sorted(evaluation.content.items()))
        if (settings, evaluation.tasks) not in self._roles:
            # once: a folder that is edited while a trial runs must not change the trial that is pinned to its earlier content
            own_tasks.check(evaluation)
            folder = opened(evaluation.include) if evaluation.include is not None else None
            if folder is not None and evaluation.trust_code:
                own_code.begin(folder.root, folder)
            built = {}
            for leaf in (leaf for name in evaluation.tasks for leaf in self.leaves(name, folder)):
                _check_code(leaf)
                wanted = (settings, leaf.name, repr(leaf.overrides))
                if wanted not in self._built:
                    self._built[wanted] = self._build(leaf, evaluation, folder)
                built[leaf.name] = self._built[wanted]
            self._roles[settings, evaluation.tasks] = built
        return dict(self._roles[settings, evaluation.tasks])

    def _build(self, leaf: Leaf, evaluation: Evaluation, folder: TaskFolder | None) -> Any:
        own = folder if folder is not None and (leaf.entry is None or leaf.entry.own) else None
        config = _config(leaf, evaluation, folder)
        if folder is None or evaluation.trust_code:
            templates.trust(config)
        elif own is None and leaf.entry is not None:  # lm-eval's own task, but what the folder overrides
            templates.trust(_with_functions(leaf.entry))
        if folder is not None:
            templates.explain(own_tasks.template_places(folder, leaf))
        if own is not None:
            own_tasks.check_keys(own, leaf, config, _KEYS)
        if folder is not None and not evaluation.trust_code and (own is not None or "metric_list" in leaf.overrides):
            own_tasks.check_metrics(folder, leaf, config, METRIC_REGISTRY)
        if evaluation.shots is not None:
            config["num_fewshot"] = evaluation.shots
        if evaluation.sampler != "stock":
            named = {"first_n": "first_n", "drawn": "default"}[evaluation.sampler]
            config["fewshot_config"] = {**(config.get("fewshot_config") or {}), "sampler": named}
        if own is not None and self._has_own_data(own, leaf, config):
            with own_tasks.explained(own, leaf):
                task = _MANAGER.load([config])["tasks"][leaf.name]
        else:
            task = self._with_data_of_hub(leaf, config, evaluation.content, own)
        task.doc_iterator = _Documents(task)
        if own is not None:
            task.process_results = scores = Scores(own, leaf, task)
            with own_tasks.explained(own, leaf):
                scores.check()
        return task

    def _has_own_data(self, folder: TaskFolder, leaf: Leaf, config: dict[str, Any]) -> bool:
        """Points the config to the folder's own data. False for a task with a data set of the hub."""
        given = config.get("dataset_kwargs") or {}
        if (files := local_data.data_files(folder, leaf)) is not None:
            # datasets takes each name for a pattern
            named = {split: [glob.escape(str(file)) for file in some] for split, some in files.items()}
            every = [file for some in files.values() for file in some]
            others = {key: value for key, value in given.items() if key != "data_dir"}
            config["dataset_kwargs"] = {**others, "data_files": named, "cache_dir": cache_of(every)}
            return True
        if (place := local_data.data_folder(folder, leaf)) is not None:
            found = self.hub.dataset_arguments(str(place))
            config["dataset_path"] = found.pop("path")
            config["dataset_kwargs"] = {**given, **found}
            return True
        return not config.get("dataset_path")

    def _with_data_of_hub(self, leaf: Leaf, config: dict[str, Any], content: Mapping[str, str], own: TaskFolder | None) -> Any:
        """The task with data of the hub or its mirror, at the commit of its pin."""
        dataset, commit = config.get("dataset_path"), None
        where = f"{own.place(leaf, 'dataset_path')}: " if own is not None else ""
        if dataset:
            self.hub.refuse_lookalike(f"{where}task {leaf.name!r}", dataset)
            found = self.hub.dataset_arguments(dataset)
            config["dataset_path"] = found.pop("path")
            # pinned tasks read the commit of the pin, also after the branch has moved on
            if not self.hub.has(dataset) and (commit := commit_of(content.get(dataset))):
                found["revision"] = commit
            config["dataset_kwargs"] = {**(config.get("dataset_kwargs") or {}), **found}
        unreachable = (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError)
        try:
            with own_tasks.explained(own, leaf, but=unreachable):
                task = _MANAGER.load([config])["tasks"][leaf.name]
        except unreachable as error:
            raise self.hub.missing(f"{where}data set of task {leaf.name!r},", dataset or leaf.name, error) from error
        for rows in task.dataset.values() if commit else ():
            check_commit(f"task {leaf.name}: {dataset}", commit, rows)
        return task


def _entry(manager: TaskManager, name: str) -> Entry:
    """An entry of lm-eval's index."""
    found = manager.task_index[name]
    kinds: dict[Kind, Literal["group", "tag"]] = {Kind.GROUP: "group", Kind.TAG: "tag"}
    return Entry(name, kinds.get(found.kind, "task"), found.yaml_path, found.cfg or {}, tuple(sorted(found.tags)))


def _with_functions(entry: Entry) -> Mapping[str, Any]:
    """The config of a task or group of lm-eval with its functions; that of a folder keeps their texts."""
    return load_yaml(entry.file) if entry.file is not None and not entry.own else entry.config


def _config(leaf: Leaf, evaluation: Evaluation, folder: TaskFolder | None) -> dict[str, Any]:
    """The task's config with its functions. Raises InputError for code of the folder that the role does not trust."""
    config = {**(_with_functions(leaf.entry) if leaf.entry is not None else {}), **leaf.overrides, "task": leaf.name}
    for key in ("tag", "group", "task_list"):
        config.pop(key, None)
    if folder is None:
        return config
    imported = own_code.import_from(folder.root, folder.pinned) if evaluation.trust_code else own_code.refused
    with own_tasks.explained(folder, leaf):
        return dict(own_code.resolved(config, imported))


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


def check(role: str, evaluation: Evaluation, tasks: Tasks) -> None:
    """Raises InputError for an unknown task, metric or filter of the role, or more documents than there are."""
    total, scales = 0, set()
    filters = [evaluation.filter, *([evaluation.flexible] if evaluation.flexible is not None else [])]
    for name, task in tasks.build(evaluation).items():
        total += len(task.eval_docs)
        _check_shots(role, name, task)
        for wanted in [f"{evaluation.metric},{one}" for one in filters]:
            if wanted not in measured(task):
                known, near = "; ".join(measured(task)), nearest(wanted, measured(task))
                hint = f"; did you mean {near}?" if near else ""
                raise InputError(f"eval.{role}: task {name} measures {known}; not {wanted} (metric,filter){hint}")
        try:
            found = measure(task, evaluation.metric)
            scales.add(found.scale)
            if isinstance(task.process_results, Scores):
                task.process_results.check_value(found)
        except InputError as error:
            raise InputError(f"eval.{role}: task {name}: {error}") from None
    if len(scales) > 1:
        raise InputError(f"eval.{role}: {evaluation.metric} of {' and '.join(evaluation.tasks)} is aggregated in two ways")
    if (evaluation.marker or evaluation.flexible) and scales != {SHARES_SCALE}:
        raise InputError(f"eval.{role}: marker and flexible are of a metric of right answers, which {evaluation.metric} is not")
    if evaluation.documents is not None and evaluation.documents > total:
        raise too_many_documents(role, evaluation, total)


def too_many_documents(role: str, evaluation: Evaluation, total: int) -> InputError:
    return InputError(f"eval.{role}.documents: {evaluation.documents} requested, {'+'.join(evaluation.tasks)} has {total}")


def _check_code(leaf: Leaf) -> None:
    """Raises InputError for a task that lm-eval marks as one that runs responses. Building one may run code already."""
    if leaf.setting("unsafe_code"):
        raise InputError(
            f"eval: task {leaf.name} runs the code that a model generates (unsafe_code), and nothing contains it here; choose "
            "a task that only reads responses"
        )


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
