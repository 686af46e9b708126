"""Checks that a model answered the base's documents under the base's prompts and settings, before anything is written."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from trials.errors import InputError
from trials.imported.samples import HASHES
from trials.ledger.outcomes import Scale
from trials.ledger.record import TrialRecord
from trials.printable import one_line

_WHAT = {
    "doc_hash": "is another document than the base's",
    "prompt_hash": "has another prompt than the base's (few-shot rows, chat template or system message)",
    "target_hash": "has another target than the base's",
}


@dataclass(frozen=True)
class Measured:
    """A model's record, and its documents as `samples.documents` returns them."""

    record: TrialRecord
    documents: pd.DataFrame


def check(base: Measured, tuned: Measured) -> None:
    """Raises InputError, one line with file and line, at the first difference that makes the pairs no pairs."""
    for task, settings in _tasks(base.record).items():
        file, ours = _file(tuned.record, task), _tasks(tuned.record)[task]
        for name in dict.fromkeys([*settings, *ours]):
            own, theirs = ours.get(name), settings.get(name)
            if own != theirs:
                raise InputError(
                    f"{file}: task {task} ran with {name} {_short(own)}, the base with {_short(theirs)} "
                    f"({_file(base.record, task)}); evaluate one of the two again"
                )
        _check_documents(base, tuned, task)
    for role, evaluation in base.record.spec.eval.items():
        scale, other = tuned.record.scale(role), base.record.scale(role)
        if (scale.form, scale.higher_is_better) != (other.form, other.higher_is_better):
            raise InputError(
                f"{_file(tuned.record, evaluation.tasks[0])}: {evaluation.metric} is {_scale(scale)}, the base's is "
                f"{_scale(other)}; evaluate one of the two again"
            )


def _check_documents(base: Measured, tuned: Measured, task: str) -> None:
    ours, theirs = (_by_number(one.documents, task) for one in (tuned, base))
    file, other = _file(tuned.record, task), _file(base.record, task)
    counts = f"it has {len(ours)} documents, the base {len(theirs)}"
    if alone := sorted(ours.keys() - theirs.keys()):
        raise InputError(
            f"{file}:{ours[alone[0]]['line']}: document {alone[0]} of {task} is not among the base's in {other}; {counts}"
        )
    if lacking := sorted(theirs.keys() - ours.keys()):
        raise InputError(f"{file}: document {lacking[0]} of {task} is missing, which the base has in {other}; {counts}")
    for number, row in ours.items():
        for name in HASHES:
            if row[name] != theirs[number][name]:
                raise InputError(f"{file}:{row['line']}: document {number} of {task} {_WHAT[name]}, in {other}")


def _by_number(documents: pd.DataFrame, task: str) -> dict[int, Mapping[Any, Any]]:
    rows = documents[documents["task"] == task]
    return {int(row["doc_id"]): row for row in rows.to_dict("records")}


def differences(base: TrialRecord, tuned: TrialRecord) -> Iterator[str]:
    """What differs between the evaluations and may explain a difference between the models, a sentence each."""
    assert base.imported is not None and tuned.imported is not None
    pairs = {name: (tuned.versions.get(name), base.versions.get(name)) for name in ("lm-eval", "transformers")}
    if tuned.imported.dtype and base.imported.dtype:  # some versions of lm-eval, and older records, do not say it
        pairs["dtype"] = (tuned.imported.dtype, base.imported.dtype)
    for name in ("load_in_4bit", "load_in_8bit"):
        pairs[name] = (tuned.imported.arguments.get(name), base.imported.arguments.get(name))
    differing = [
        f"{name} {one or 'unset'} instead of {other or 'unset'}" for name, (one, other) in pairs.items() if one != other
    ]
    if differing:
        yield f"{tuned.imported.model} was evaluated with {', '.join(differing)}, which the base was evaluated with"


def _tasks(record: TrialRecord) -> dict[str, dict[str, Any]]:
    return record.imported.tasks if record.imported is not None else {}


def _file(record: TrialRecord, task: str) -> str:
    return record.imported.files[task] if record.imported is not None else record.key


def _scale(scale: Scale) -> str:
    return f"a {scale.form} that is better when {'higher' if scale.higher_is_better else 'lower'}"


def _short(value: Any) -> str:
    text = "unset" if value is None else one_line(value)
    return text if len(text) <= 80 else f"{text[:79]}…"
