"""Evaluates a model on a role's benchmarks through lm-eval; returns the outcome of every document."""

import functools
import logging
import random
from collections.abc import Callable, Mapping
from typing import Any

import lm_eval
import numpy as np
import pandas as pd
import torch

from trials.errors import InputError
from trials.evaluation import decomposition
from trials.evaluation.documents import outcomes
from trials.evaluation.engine.fast_engine import FastEngine
from trials.evaluation.engine.hf_engine import HFEngine
from trials.evaluation.engine.lm_eval_adapter import LmEvalAdapter
from trials.evaluation.engine.protocol import Engine
from trials.ledger.outcomes import Scale
from trials.spec import Evaluation
from trials.tasks.chat_prompts import WITHOUT_SYSTEM, ChatPrompts, check_tasks
from trials.tasks.measures import Measure, check_aggregate, measure
from trials.tasks.splits import document_numbers
from trials.tasks.tasks import Tasks, check

for _name in ("lm_eval", "lm_eval.evaluator", "lm_eval.api.task"):
    logging.getLogger(_name).setLevel(logging.ERROR)


def make_engine(name: str, model: Any, tokenizer: Any, batch_size: int) -> Engine:
    """The engine of this name (see Evaluation.engine), with `batch_size` rows in memory at once."""
    engines: dict[str, Callable[[Any, Any, int], Engine]] = {"exact": FastEngine, "hflm": HFEngine}
    return engines[name](model, tokenizer, batch_size)


def evaluate(
    engine: Engine, role: str, evaluation: Evaluation, tasks: Tasks, samples: Mapping[str, list[int]] | None = None
) -> pd.DataFrame:
    """One role's outcomes, a row per document (see Ledger.documents).

    `samples`: sorted document numbers by task. Default: all of the role's. attrs["engine"] of the result are the notes of
    LmEvalAdapter.
    """
    check(role, evaluation, tasks)
    check_tasks(role, evaluation, tasks)
    built = tasks.build(evaluation)
    samples = document_numbers(evaluation, built) if samples is None else dict(samples)
    chat = ChatPrompts(role, evaluation, engine.tokenizer) if evaluation.chat_template else None
    lm = LmEvalAdapter(engine, functools.partial(_solution, built, chat is not None), chat, evaluation.think_end_token)
    for task in built.values():  # as lm-eval's simple_evaluate does, which spends seconds on a description of the machine
        if task.get_config("num_fewshot") is None:
            task.set_config(key="num_fewshot", value=0)
        task.set_fewshot_seed(seed=evaluation.fewshot_seed)
    random.seed(lm_eval.defaults.DEFAULT_RANDOM_SEED)
    np.random.seed(lm_eval.defaults.DEFAULT_OTHER_SEED)
    torch.manual_seed(lm_eval.defaults.DEFAULT_OTHER_SEED)
    results = lm_eval.evaluate(
        lm=lm,
        task_dict={"tasks": {name: built[name] for name in samples}, "groups": {}, "group_map": {}},
        samples=samples,
        bootstrap_iters=0,
        log_samples=True,
        system_instruction=evaluation.system,
        apply_chat_template=chat is not None,
        fewshot_as_multiturn=evaluation.multiturn,
    )
    frames = []
    for name, entries in results["samples"].items():
        found = measures(built[name], evaluation)
        documents = outcomes(role, name, evaluation, entries, found)
        _check_aggregate(documents, evaluation, found[evaluation.metric], results["results"][name])
        questions = {entry["doc_id"]: question(built[name], entry["doc"]) for entry in entries}
        documents["question"] = documents["doc_id"].map(questions)
        first = {entry["doc_id"]: entry for entry in reversed(entries)}  # one entry per filter; the columns do not depend on it
        parts = decomposition.columns(lm, evaluation, built[name], [first[doc_id] for doc_id in documents["doc_id"]])
        frames.append(pd.concat([documents, pd.DataFrame(parts, index=documents.index)], axis=1))
    together = pd.concat(frames, ignore_index=True)
    together.attrs["engine"] = lm.notes | ({"chat template": WITHOUT_SYSTEM} if chat and chat.without_system else {})
    return together


def _solution(built: Mapping[str, Any], chat: bool, request: Any) -> str:
    """The gold continuation of a generation request."""
    task = built[request.task_name]
    return decomposition.solution(task, request.doc, task.doc_to_target(request.doc), chat)


def scale(evaluation: Evaluation, tasks: Tasks) -> Scale:
    """How the role's score is made of its documents."""
    return next(measure(task, evaluation.metric).scale for task in tasks.build(evaluation).values())


def _check_aggregate(documents: pd.DataFrame, evaluation: Evaluation, found: Measure, reported: Mapping[str, Any]) -> None:
    """Raises InputError where the documents' scores do not add up to lm-eval's own score of their task."""
    weights = documents["weight"] if "weight" in documents else [1.0] * len(documents)
    rows = zip(documents["score"], weights, strict=True)
    try:
        check_aggregate(found, rows, reported.get(f"{evaluation.metric},{evaluation.filter}"))
    except InputError as error:
        raise InputError(f"eval.{documents['role'][0]}: task {documents['task'][0]}: {error}") from None


def measures(task: Any, evaluation: Evaluation) -> dict[str, Measure]:
    """The task's metrics that have a value of a single document, the role's own among them."""
    found = {}
    for metric in task.aggregation():
        try:
            found[metric] = measure(task, metric)
        except InputError:
            if metric == evaluation.metric:
                raise
    # another metric's function may fail on a single document, which is no reason to fail the trial
    return {name: one for name, one in found.items() if name == evaluation.metric or one.registered}


def question(task: Any, doc: Mapping[str, Any]) -> str:
    """The question without few-shot rows; of a multiple choice with its choices, numbered from 0 as targets are."""
    if task.OUTPUT_TYPE != "multiple_choice":
        return str(task.doc_to_text(doc))
    choices = [f"({number}) {choice}" for number, choice in enumerate(task.doc_to_choice(doc))]
    return "\n".join([*([] if task.multiple_input else [str(task.doc_to_text(doc))]), *choices])
