"""Sizes of a role's own tasks in documents and tokens, from the documents themselves."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from statistics import mean
from typing import Any

from lm_eval.models.utils import normalize_gen_kwargs

from orchestrator.planning.benchmark_lengths import Lengths
from trials.spec import Evaluation
from trials.tasks.tasks import DEFAULT_RESPONSE_TOKENS, Tasks

_DOCUMENTS = 32  # read of a task to learn its lengths

Count = Callable[[str], int]
"""Tokens of a text."""


def own_lengths(evaluation: Evaluation, tasks: Tasks, count: Count) -> list[Lengths] | None:
    """The size of each task as the role takes it, without its chat template; None for tasks that are not at hand.

    A response is taken to be as long as it may be.
    """
    if evaluation.include is None or not tasks.at_hand(evaluation):
        return None
    found = [_lengths(task, count) for task in tasks.build(evaluation).values()]
    if evaluation.documents is None:
        return found
    share = evaluation.documents / sum(one.documents for one in found)
    return [replace(one, documents=round(one.documents * share)) for one in found]


def _lengths(task: Any, count: Count) -> Lengths:
    documents = task.eval_docs
    some = [documents[number] for number in range(0, len(documents), len(documents) // _DOCUMENTS + 1)]
    contexts, requests, endings, generated = [count(_text(task.doc_to_text(doc))) for doc in some], 1, [0], 0
    match task.OUTPUT_TYPE:
        case "generate_until":
            generated = normalize_gen_kwargs(task.config.generation_kwargs, DEFAULT_RESPONSE_TOKENS)["max_gen_toks"]
        case "multiple_choice":
            choices = [task.doc_to_choice(doc) for doc in some]
            requests = max(map(len, choices))
            endings = [count(choice) for row in choices for choice in row]
        case _:
            endings = [count(_text(task.doc_to_target(doc))) for doc in some]
    return Lengths(
        documents=len(documents),
        context=round(mean(contexts)),
        shot=round(mean(contexts)) + round(mean(count(_text(task.doc_to_target(doc))) for doc in some)),
        shots=task.config.num_fewshot or 0,
        requests=requests,
        ending=round(mean(endings)),
        generated=generated,
        longest=max(contexts) + max(endings),
    )


def _text(value: Any) -> str:
    """A prompt or an answer; of several answers the longest, of a choice's number the number."""
    return max(map(str, value), key=len) if isinstance(value, Sequence) and not isinstance(value, str) and value else str(value)
