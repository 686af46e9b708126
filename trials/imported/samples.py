"""Reads lm-eval's samples, and packs a model's answers to a role as the documents of a record.

Numbers are those of our own evaluation: the outcomes come from the same functions. What needs the model again is missing:
whether a response ended by itself, and the bits of a gold solution.
"""

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from trials.errors import InputError
from trials.evaluation.documents import multiple_choice, outcomes
from trials.imported.folder import Run
from trials.ledger.outcomes import SHARES_SCALE, Scale
from trials.printable import one_line
from trials.spec import Evaluation
from trials.tasks.measures import Measure, logged

HASHES = ("doc_hash", "prompt_hash", "target_hash")
"""lm-eval's checksums of a document, of its first prompt and of its target."""
_TOLERANCE = 1e-6  # between the mean of the documents and the task's result


def documents(role: str, evaluation: Evaluation, runs: Mapping[str, Run]) -> pd.DataFrame:
    """The role's outcomes, a row a document as in Ledger.documents, with HASHES and the `line` of the samples file.

    `runs`: the model's run of each task. InputError names the file and the line of anything that is missing or damaged.
    """
    frames = [_task(role, task, evaluation, runs[task]) for task in evaluation.tasks]
    return pd.concat(frames, ignore_index=True)


def scale(role: str, evaluation: Evaluation, runs: Mapping[str, Run]) -> Scale:
    """How the role's score is made of its documents. InputError for a metric that single documents do not add up to."""
    found = {_measure(runs[task], task, evaluation.metric).scale for task in evaluation.tasks}
    if len(found) > 1:
        raise InputError(
            f"{role}: {evaluation.metric} of {' and '.join(evaluation.tasks)} is aggregated in two ways; name a role for each "
            "with --role"
        )
    return found.pop()


def _measure(run: Run, task: str, metric: str) -> Measure:
    try:
        return logged(metric, run.metric_entry(task, metric), run.higher_is_better(task, metric))
    except InputError as error:
        raise InputError(f"{run.path}: task {task}: {error}; --role names it") from None


def _task(role: str, task: str, evaluation: Evaluation, run: Run) -> pd.DataFrame:
    path, measure = run.samples(task), _measure(run, task, evaluation.metric)
    entries = list(_entries(path, run))
    _check_whole(path, run, task, entries)
    _check_values(path, evaluation, measure, entries)
    first = {entry["doc_id"]: entry for entry in reversed(entries)}  # one entry a filter; the columns do not depend on it
    # a mean is read as ever: the columns are part of the keys of records
    measures = None if measure.scale == SHARES_SCALE else {evaluation.metric: measure}
    found = outcomes(role, task, evaluation, entries, measures).sort_values("doc_id", ignore_index=True)
    _check_aggregate(run, task, evaluation, measure, found)
    config, kept = run.config(task), [first[doc_id] for doc_id in found["doc_id"]]
    for name in (*HASHES, "line"):
        found[name] = [entry[name] for entry in kept]
    found["question"] = [_question(config, entry) for entry in kept]
    columns = [_columns(config, evaluation, entry) for entry in kept]
    return pd.concat([found, pd.DataFrame(columns, index=found.index)], axis=1)


# ---------------------------------------------------------------------- reading


def _entries(path: Path, run: Run) -> Iterator[dict[str, Any]]:
    """The samples of a file, each with the number of its line."""
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                yield _entry(path, number, line)
    except FileNotFoundError:
        raise InputError(
            f"{path}: there are no such samples beside {run.path.name}; evaluate {one_line(run.model)} again with --log_samples"
        ) from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None


def _entry(path: Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        entry = json.loads(line)
    except ValueError as error:  # also bytes that are no UTF-8
        raise InputError(f"{path}:{number}: not whole JSON ({one_line(error)}); the file is cut off or damaged") from None
    shapes = {"doc_id": int, "doc": dict, "arguments": dict, "resps": list, "filter": str, "metrics": list}
    shapes |= dict.fromkeys(HASHES, str)
    kinds = entry if isinstance(entry, dict) else {}
    if lacking := [name for name, shape in shapes.items() if not isinstance(kinds.get(name), shape)]:
        raise InputError(f"{path}:{number}: no sample of lm-eval 0.4.3 or later: it has no {lacking[0]}")
    if lacking := [str(name) for name in entry["metrics"] if name not in entry]:
        raise InputError(f"{path}:{number}: the sample has no value of its metric {one_line(lacking[0])}")
    arguments = [list(one.values()) if isinstance(one, dict) else [] for one in entry["arguments"].values()]
    return {**entry, "line": number, "arguments": arguments}


def _check_whole(path: Path, run: Run, task: str, entries: Sequence[Mapping[str, Any]]) -> None:
    """Raises InputError unless the file holds every sample of the run, each once."""
    seen: dict[tuple[int, str], int] = {}
    for entry in entries:
        earlier = seen.setdefault((entry["doc_id"], entry["filter"]), entry["line"])
        if earlier != entry["line"]:
            raise InputError(f"{path}:{entry['line']}: document {entry['doc_id']} stands there twice, first in line {earlier}")
    filters = {entry["filter"] for entry in entries}
    counts = {name: sum(entry["filter"] == name for entry in entries) for name in filters}
    expected = run.documents(task)
    expected_count = expected[0] if expected else max(counts.values(), default=0)
    if not entries or set(counts.values()) != {expected_count}:
        has = " and ".join(f"{count} of filter {one_line(name)}" for name, count in sorted(counts.items())) or "none"
        raise InputError(
            f"{path}: the samples of {expected_count or 'some'} documents are expected, found {has}; it is cut off"
        )
    digest = hashlib.sha256("".join(entry[name] for entry in entries for name in HASHES).encode()).hexdigest()
    if run.digest(task) not in (None, digest):
        raise InputError(f"{path}: its documents are not those of {run.path.name} (task_hashes); one of the two was replaced")


def _check_values(path: Path, evaluation: Evaluation, measure: Measure, entries: Sequence[Mapping[str, Any]]) -> None:
    """Raises InputError where the role's metric has no number of a single document."""
    for entry in entries:
        if entry["filter"] != evaluation.filter or measure.metric not in entry["metrics"]:
            continue
        try:
            measure.of_document(entry[measure.metric])
        except (TypeError, ValueError, LookupError, InputError):
            raise InputError(
                f"{path}:{entry['line']}: {measure.metric} of this document is {one_line(entry[measure.metric])[:60]}, "
                "which is no number of a single document; choose another metric with --role"
            ) from None


def _check_aggregate(run: Run, task: str, evaluation: Evaluation, measure: Measure, found: pd.DataFrame) -> None:
    """Raises InputError where the documents do not add up to the task's result: they then say nothing about it."""
    name = f"{evaluation.metric},{evaluation.filter}"
    weights = found["weight"] if "weight" in found else [1.0] * len(found)
    result, own = run.metrics(task).get(name), measure.value(zip(found["score"], weights, strict=True))
    if result is None or math.isclose(result, own, rel_tol=_TOLERANCE, abs_tol=_TOLERANCE):
        return
    raise InputError(
        f"{run.samples(task)}: {name} over its documents is {own:.6g}, and {run.path.name} says {result:.6g}: that metric is "
        "no mean over documents, so models cannot be paired by it; choose another one with --role"
    )


# ---------------------------------------------------------------------- columns


def _columns(config: Mapping[str, Any], evaluation: Evaluation, entry: Mapping[str, Any]) -> dict[str, float]:
    """The columns of trials/evaluation/decomposition.py that need no model."""
    if config.get("output_type") == "multiple_choice":
        return _choice(config, entry)
    if config.get("output_type") == "generate_until" and evaluation.marker is not None:
        return {"marker": float(evaluation.marker in _first(entry))}
    return {}


def _choice(config: Mapping[str, Any], entry: Mapping[str, Any]) -> dict[str, float]:
    requests = [one for one in entry["arguments"] if len(one) > 1]
    if "acc_mutual_info" in entry["metrics"]:  # each choice is scored again without its context
        requests = requests[: len(requests) // 2]
    contexts, texts = {one[0] for one in requests}, [str(one[1]) for one in requests]
    delimiter = str(config.get("target_delimiter", " "))
    if len(contexts) != 1 or not all(text.startswith(delimiter) for text in texts):
        return {}  # several contexts and one continuation, as in Winogrande: the choices are not in the file
    choices = [text.removeprefix(delimiter) for text in texts]
    gold = _gold(choices, str(entry.get("target")))
    if gold is None or len(entry["resps"]) < len(choices):
        return {}
    levels = [float(resps[0][0]) for resps in entry["resps"][: len(choices)]]
    return multiple_choice(choices, gold, levels, texts[gold])


def _gold(choices: Sequence[str], target: str) -> int | None:
    """The gold choice's place. The file holds a text for a place and for a choice alike; None where it may be either."""
    places = {choices.index(target)} if target in choices else set()
    if target.isdecimal() and int(target) < len(choices):
        places.add(int(target))
    return places.pop() if len(places) == 1 else None


def _first(entry: Mapping[str, Any]) -> str:
    return str(entry["resps"][0][0])


def _question(config: Mapping[str, Any], entry: Mapping[str, Any]) -> str:
    """The last part of the prompt, after the few-shot rows; of a multiple choice with its choices, numbered from 0."""
    requests = [one for one in entry["arguments"] if one]
    if not requests:
        return ""
    prompt = str(requests[0][0])
    if config.get("num_fewshot"):
        prompt = prompt.rpartition(str(config.get("fewshot_delimiter") or "\n\n"))[2]
    if config.get("output_type") != "multiple_choice":
        return prompt
    return "\n".join([prompt, *(f"({place}) {str(one[-1]).strip()}" for place, one in enumerate(requests))])
