"""Decomposition of outcomes: format against skill of a response, and bits of the gold solution by class of token.

Columns of a document, beside lm-eval's own:

Generated task
    strict, flexible   0 or 1: right by the evaluation's filter, and by its laxer one (if `flexible` names another)
    marker             0 or 1: the response contains the evaluation's marker (if there is one)
    stopped            0 or 1: the response ended by itself, not at its greatest number of tokens
    bits, bytes        gold solution after the prompt, few-shot rows included, teacher-forced; with .CLASS for the tokens
                       of that class. CLASSES add up to the whole; PARTS are what digit and format are made of
Multiple choice
    choices            number of endings
    bits, bytes        gold ending
    margin             log-likelihood per character of the gold ending, as in acc_norm, minus the best of the others;
                       nats per character, above 0 where acc_norm is right
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from trials.evaluation.documents import multiple_choice
from trials.evaluation.engine.lm_eval_adapter import LmEvalAdapter, Token
from trials.spec import Evaluation

CLASSES = ("word", "digit", "operator", "format")
PARTS = {
    "digit_copied": "digit",  # in a number of the question
    "digit_computed": "digit",  # in another number
    "final": "digit",  # in the number after the marker
    "calculator": "format",  # << >> and what is between them
    "marker": "format",
}

_NUMBER = re.compile(r"\d+(?:,\d{3})*(?:\.\d+)?")
# signs, but not within a word; x only between numbers
_OPERATOR = re.compile(r"[+*=×÷^%()]|(?<![A-Za-z])[-/]|[-/](?![A-Za-z])|(?<=\d)[xX](?=\d)|(?<=\d )[xX](?= \d)")
_CALCULATOR = re.compile(r"<<.*?>>")

Entry = Mapping[str, Any]  # a logged sample of lm-eval


def columns(lm: LmEvalAdapter, evaluation: Evaluation, task: Any, entries: Sequence[Entry]) -> list[dict[str, float]]:
    """The columns of every entry; none for tasks of other kinds."""
    if task.OUTPUT_TYPE == "multiple_choice":
        return [_choice(task, entry) for entry in entries]
    if task.OUTPUT_TYPE == "generate_until":
        return _generated(lm, evaluation, task, entries)
    return [{} for _ in entries]


def _choice(task: Any, entry: Entry) -> dict[str, float]:
    choices = task.doc_to_choice(entry["doc"])
    gold = task.doc_to_text(entry["doc"]) if task.multiple_input else entry["target"]
    if isinstance(gold, str) and gold in choices:
        gold = choices.index(gold)
    if not isinstance(gold, int) or not 0 <= gold < len(choices):
        return {}  # several gold endings, or none
    levels = [float(resps[0][0]) for resps in entry["resps"][: len(choices)]]
    return multiple_choice(choices, gold, levels, entry["arguments"][gold][1])


def _generated(lm: LmEvalAdapter, evaluation: Evaluation, task: Any, entries: Sequence[Entry]) -> list[dict[str, float]]:
    prompts = [entry["arguments"][0][0] for entry in entries]
    golds = [solution(task, entry["doc"], entry["target"], bool(evaluation.chat_template)) for entry in entries]
    found = []
    tokens = lm.continuation_bits(list(zip(prompts, golds, strict=True)))
    for entry, prompt, gold, parts in zip(entries, prompts, golds, tokens, strict=True):
        row = {"stopped": float(lm.stopped(prompt))}
        if evaluation.marker is not None:
            row["marker"] = float(evaluation.marker in entry["resps"][0][0])
        question = str(task.doc_to_text(entry["doc"]))
        found.append(row | _sums(gold, parts, classes(gold, question, evaluation.marker)))
    return found


def solution(task: Any, doc: Any, target: Any, chat: bool = False) -> str:
    """The gold solution with the delimiter before it, as in a few-shot row. `target`: the task's for the document.

    In a chat the assistant's message begins with the solution. lm-eval delimits it from a prefix of the message alone.
    """
    if task.config.doc_to_choice is not None and isinstance(target, int):
        target = task.doc_to_choice(doc)[target]
    prefix = task.config.gen_prefix
    delimiter = task.config.target_delimiter if not chat or (prefix and not prefix[-1:].isspace()) else ""
    return f"{delimiter}{target[0] if isinstance(target, list) else target}"


def classes(gold: str, question: str, marker: str | None) -> list[str]:
    """The class of every character of a gold solution: one of PARTS, `operator`, or `word` for the rest."""
    found = ["word"] * len(gold)
    copied = {match.group().replace(",", "") for match in _NUMBER.finditer(question)}
    for match in _OPERATOR.finditer(gold):
        _put(found, match.span(), "operator")
    for match in _NUMBER.finditer(gold):
        _put(found, match.span(), "digit_copied" if match.group().replace(",", "") in copied else "digit_computed")
    for match in _CALCULATOR.finditer(gold):
        _put(found, match.span(), "calculator")
    at = gold.rfind(marker) if marker else -1
    if marker and at >= 0:
        end = at + len(marker)
        _put(found, (at, end), "marker")
        if final := _NUMBER.search(gold, end):
            _put(found, final.span(), "final")
    return found


def _put(found: list[str], span: tuple[int, int], name: str) -> None:
    found[slice(*span)] = [name] * (span[1] - span[0])


def _sums(gold: str, tokens: Sequence[Token], kinds: Sequence[str]) -> dict[str, float]:
    """Bits and bytes in total and by class. A token belongs to the class of its first character that is no white space."""
    sums = {f"{unit}{name}": 0.0 for name in ("", *(f".{one}" for one in (*CLASSES, *PARTS))) for unit in ("bits", "bytes")}
    for token in tokens:
        text = gold[token.begin : token.end]
        first = token.begin + len(text) - len(text.lstrip())
        kind = kinds[min(first, len(gold) - 1) if text.strip() else max(token.end - 1, 0)]
        for name in ("", *(f".{one}" for one in {kind, PARTS.get(kind, kind)})):
            sums[f"bits{name}"] += token.bits
            sums[f"bytes{name}"] += len(text.encode())
    return sums
