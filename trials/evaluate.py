"""Scores a model on the roles' benchmarks through lm-eval, and keeps every document's outcome."""

import difflib
import functools
import logging
import random
from collections.abc import Mapping, Sequence
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import lm_eval
import lm_eval.utils
import numpy as np
import pandas as pd
import torch
from lm_eval.tasks import TaskManager

from trials import dissect
from trials.errors import InputError
from trials.exact import Exact
from trials.halves import cluster, half
from trials.hub import TASK_FOLDERS, Hub
from trials.scorer import Scorer
from trials.spec import Evaluation

for _name in ("lm_eval", "lm_eval.models.huggingface", "lm_eval.evaluator", "lm_eval.api.task"):
    logging.getLogger(_name).setLevel(logging.ERROR)


# lm-eval compiles a task's template anew for every text that it writes with it: a third of the time of a small model's trial
lm_eval.utils.env.from_string = cache(lm_eval.utils.env.from_string)  # type: ignore[method-assign]


@cache
def _stock_tasks() -> TaskManager:
    """Those that lm-eval brings. Their index takes ten seconds to build."""
    return TaskManager()


class Tasks:
    """lm-eval's tasks, each built once per process and read from where `hub` finds its data."""

    def __init__(self, hub: Hub):
        self.hub = hub
        self._built: dict[tuple[str, int | None, str], Any] = {}

    @cached_property
    def _bundled(self) -> TaskManager:
        return TaskManager(include_path=[str(folder) for folder in TASK_FOLDERS], include_defaults=False)

    def bundled(self, name: str) -> bool:
        """Whether a package here brings the task, and so its data."""
        return name in self._bundled.task_index

    def _manager(self, name: str) -> TaskManager:
        """The manager that knows the task; lm-eval's own is asked last."""
        if self.bundled(name):
            return self._bundled
        stock = _stock_tasks()
        if name not in stock.task_index:
            near = difflib.get_close_matches(name, [*self._bundled.all_tasks, *stock.all_tasks], n=3)
            raise InputError(f"eval: lm-eval has no task {name!r}" + (f"; near: {', '.join(near)}" if near else ""))
        return stock

    def _leaves(self, manager: TaskManager, name: str) -> list[str]:
        """The single tasks behind a task, group or tag."""
        from lm_eval.tasks._index import Kind

        entry = manager.task_index[name]
        if entry.kind in (Kind.TASK, Kind.PY_TASK):
            return [name]
        members = entry.tags if entry.kind is Kind.TAG else (entry.cfg or {}).get("task", [])
        names = [member if isinstance(member, str) else member["task"] for member in members]
        return [leaf for member in names for leaf in self._leaves(manager, member)]

    def datasets(self, name: str) -> set[str]:
        """The data sets of the tasks behind `name`, as they name them; for a task that names none, itself."""
        from lm_eval.tasks._yaml_loader import load_yaml

        manager = self._manager(name)
        paths = {leaf: manager.task_index[leaf].yaml_path for leaf in self._leaves(manager, name)}
        return {(load_yaml(path) if path else {}).get("dataset_path", leaf) for leaf, path in paths.items()}

    def build(self, evaluation: Evaluation) -> dict[str, Any]:
        """Task name -> lm-eval Task, for every single task of the role; raises InputError when one cannot be had."""
        built = {}
        for name in evaluation.tasks:
            manager = self._manager(name)
            for leaf in self._leaves(manager, name):
                wanted = (leaf, evaluation.shots, evaluation.sampler)
                if wanted not in self._built:
                    self._built[wanted] = self._build(manager, *wanted)
                built[leaf] = self._built[wanted]
        return built

    def _build(self, manager: TaskManager, name: str, shots: int | None, sampler: str) -> Any:
        import datasets
        from lm_eval.tasks._yaml_loader import load_yaml

        path = manager.task_index[name].yaml_path
        config: dict[str, Any] = load_yaml(path) if path else {"task": name}
        if shots is not None:
            config["num_fewshot"] = shots
        if sampler != "stock":
            named = {"first_n": "first_n", "drawn": "default"}[sampler]
            config["fewshot_config"] = {**(config.get("fewshot_config") or {}), "sampler": named}
        dataset = config.get("dataset_path")
        if dataset:
            found = self.hub.dataset_arguments(dataset)
            config["dataset_path"] = found.pop("path")
            config["dataset_kwargs"] = {**(config.get("dataset_kwargs") or {}), **found}
        try:
            return manager.load([{**config, "task": name}])["tasks"][name]
        except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
            raise self.hub.missing(f"data set of task {name!r},", dataset or name, error) from error


def measured(task: Any) -> list[str]:
    """The "metric,filter" names of a task, in lm-eval's order."""
    filters = [ensemble.name for ensemble in task._filters]
    return [f"{metric},{filter_name}" for filter_name in filters for metric in task._metric_fn_list]


def check(role: str, evaluation: Evaluation, tasks: Tasks) -> None:
    """Raises InputError when the role's tasks, metric, filter or number of documents cannot be had."""
    total = 0
    filters = [evaluation.filter, *([evaluation.flexible] if evaluation.flexible is not None else [])]
    for name, task in tasks.build(evaluation).items():
        total += len(task.eval_docs)
        for wanted in [f"{evaluation.metric},{one}" for one in filters]:
            if wanted not in measured(task):
                known = "; ".join(measured(task))
                raise InputError(f"eval.{role}: task {name} measures {known}; not {wanted} (metric,filter)")
    if evaluation.documents is not None and evaluation.documents > total:
        raise InputError(f"eval.{role}.documents: {evaluation.documents} asked for, {'+'.join(evaluation.tasks)} has {total}")


def sample(sizes: Mapping[str, int], documents: int | None, seed: int) -> dict[str, list[int]]:
    """Sorted document numbers by task: a seeded sample of all tasks' documents together; a smaller one is part of a larger one.

    Sorted because lm-eval walks the documents in ascending order while it takes their numbers from the list.
    """
    everything = [(task, index) for task, size in sizes.items() for index in range(size)]
    if documents is not None:
        order = np.random.default_rng(seed).permutation(len(everything))
        everything = [everything[i] for i in order[:documents]]
    chosen: dict[str, list[int]] = {}
    for task, index in sorted(everything):
        chosen.setdefault(task, []).append(index)
    return chosen


def evaluate(model: Any, tokenizer: Any, role: str, evaluation: Evaluation, tasks: Tasks, batch_size: int) -> pd.DataFrame:
    """One role's outcomes, a row per document (see Ledger.documents), with `batch_size` rows in memory at once."""
    check(role, evaluation, tasks)
    built = tasks.build(evaluation)
    samples = sample({name: len(task.eval_docs) for name, task in built.items()}, evaluation.documents, evaluation.seed)
    scorer = {"exact": Exact, "hflm": Scorer}[evaluation.engine](model, tokenizer, batch_size)
    if isinstance(scorer, Exact):
        scorer.gold = functools.partial(_solution, built)
    for task in built.values():  # as lm-eval's simple_evaluate does, less the seconds it spends on describing the machine
        if task.get_config("num_fewshot") is None:
            task.set_config(key="num_fewshot", value=0)
        task.set_fewshot_seed(seed=evaluation.fewshot_seed)
    random.seed(lm_eval.defaults.DEFAULT_RANDOM_SEED)
    np.random.seed(lm_eval.defaults.DEFAULT_OTHER_SEED)
    torch.manual_seed(lm_eval.defaults.DEFAULT_OTHER_SEED)
    results = lm_eval.evaluate(
        lm=scorer,
        task_dict={"tasks": {name: built[name] for name in samples}, "groups": {}, "group_map": {}},
        samples=samples,
        bootstrap_iters=0,
        log_samples=True,
    )
    frames = []
    for name, entries in results["samples"].items():
        documents = outcomes(role, name, evaluation, entries)
        questions = {entry["doc_id"]: question(built[name], entry["doc"]) for entry in entries}
        documents["question"] = documents["doc_id"].map(questions)
        first = {entry["doc_id"]: entry for entry in reversed(entries)}  # one of the filters'; what is dissected is unfiltered
        found = dissect.columns(scorer, evaluation, built[name], [first[doc_id] for doc_id in documents["doc_id"]])
        frames.append(pd.concat([documents, pd.DataFrame(found, index=documents.index)], axis=1))
    return pd.concat(frames, ignore_index=True)


def _solution(built: Mapping[str, Any], request: Any) -> str:
    """What could have answered a request of a generated task."""
    task = built[request.task_name]
    return dissect.solution(task, request.doc, task.doc_to_target(request.doc))


def outcomes(role: str, task: str, evaluation: Evaluation, entries: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """A task's logged samples (one per document and filter) as one row per document."""
    rows: dict[int, dict[str, Any]] = {}
    for entry in entries:
        row = rows.setdefault(entry["doc_id"], {"role": role, "task": task, "doc_id": entry["doc_id"]})
        row["doc_hash"] = entry["doc_hash"]
        row["half"] = half(entry["doc"], entry["doc_hash"])
        row["cluster"] = cluster(entry["doc"], entry["doc_hash"])
        row["target"] = str(entry["target"])
        row["response"] = response(entry["resps"])
        for metric in entry["metrics"]:
            if isinstance(entry[metric], (int, float, np.generic)):  # an F1, say, has no value of a single document
                row[f"{metric},{entry['filter']}"] = float(entry[metric])
    documents = pd.DataFrame(list(rows.values()))
    wanted = f"{evaluation.metric},{evaluation.filter}"
    if wanted not in documents:
        raise InputError(f"eval.{role}: {wanted} of task {task} has no value of a single document; choose another metric")
    documents.insert(5, "score", documents[wanted])
    if (evaluation.marker or evaluation.flexible) and evaluation.flexible != evaluation.filter:
        documents["strict"] = documents["score"]
    if evaluation.flexible is not None:
        documents["flexible"] = documents[f"{evaluation.metric},{evaluation.flexible}"]
    return documents


def question(task: Any, doc: Mapping[str, Any]) -> str:
    """What is asked, without few-shot rows; a multiple choice with its choices, numbered from 0 as targets are."""
    if task.OUTPUT_TYPE != "multiple_choice":
        return str(task.doc_to_text(doc))
    choices = [f"({number}) {choice}" for number, choice in enumerate(task.doc_to_choice(doc))]
    return "\n".join([*([] if task.multiple_input else [str(task.doc_to_text(doc))]), *choices])


def response(resps: Sequence[Any]) -> str:
    """The generated text, or the log-likelihoods of the choices, of a logged sample's "resps"."""
    first = [one[0] for one in resps]
    return str(first[0]) if isinstance(first[0], str) else " ".join(f"{float(one[0]):.4f}" for one in first)


def same_split(evaluation: Evaluation, dataset: str, config: str | None, split: str, tasks: Tasks) -> str | None:
    """The task of the role that is evaluated on this very split of this data set, if there is one."""
    for name, task in tasks.build(evaluation).items():
        tested = task.config.test_split or task.config.validation_split
        same_data = Path(tasks.hub.locate(dataset)) == Path(tasks.hub.locate(task.config.dataset_path or ""))
        # a configuration left out may be the very one that is named elsewhere
        same_config = config is None or task.config.dataset_name is None or config == task.config.dataset_name
        if same_data and same_config and tested in [part.partition("[")[0].strip() for part in split.split("+")]:
            return name
    return None
