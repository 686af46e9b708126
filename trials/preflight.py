"""Checks a trial's model, data and tasks before anything is loaded. Quick to import: see trials/tasks/tasks.py."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trials.data import decontamination
from trials.data.survey import Survey
from trials.errors import InputError
from trials.hub import identity
from trials.hub.hub import SELF, Hub, find_source
from trials.models import base, gguf, layout
from trials.spec import TrialSpec
from trials.tasks import chat_prompts
from trials.tasks.tasks import Tasks, check_room, same_split
from trials.tasks.tasks import check as check_role


def check_cache() -> None:
    """Raises InputError when the cache of prepared data sets is not writable: `datasets` needs that even for reads."""
    import datasets

    folder = Path(datasets.config.HF_DATASETS_CACHE)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise InputError(
            f"{folder}: {error.strerror}; data sets are prepared there: set HF_HOME, or HF_DATASETS_CACHE alone, to a folder "
            "that can be written"
        ) from None


def check(
    spec: TrialSpec, hub: Hub, tasks: Tasks, survey: Survey | None = None, replicates: Sequence[TrialSpec] = ()
) -> list[str]:
    """Raises InputError for a missing model, source or task, for too few usable rows, and for a source that is a test split.

    A `survey` shares read rows between trials. `replicates` differ from the spec in their seeds, so that they draw other rows.
    Returns notes for the user, a line each.
    """
    check_cache()
    if spec.train.backend == "unsloth" and not spec.is_baseline:
        from trials.training import unsloth  # imports the Trainer, which takes longer than all other imports here

        unsloth.check_settings(spec)
    base.check(spec.base, hub)
    identity.check(spec, hub)
    known = layout.of(spec.base, hub)  # None for weights that are not here yet: the worker checks them
    for role, evaluation in spec.eval.items():
        check_role(role, evaluation, tasks)
        if known:
            check_room(role, evaluation, tasks, known[1].longest)
    chats = any(evaluation.chat_template for evaluation in spec.eval.values())
    tokenizer = _tokenizer(spec, hub) if chats or not spec.is_baseline else None
    notes = _chat_notes(spec, tasks, tokenizer)
    if spec.is_baseline:
        return notes
    if tokenizer is not None:
        base.check_template(spec.base, spec.data, tokenizer)
    for name in spec.data.shares:
        source = find_source(spec.data, name)
        if name == SELF:
            continue
        for role, evaluation in spec.eval.items():
            # training on test documents would look like a gain
            if task := same_split(evaluation, source.dataset, source.config, source.split, tasks):
                raise InputError(
                    f"data.mix: source {name!r} is {source.dataset}/{source.split}, the very split that task {task} "
                    f"(eval.{role}) is scored on; train on another split"
                )
    screen = decontamination.Screen(decontamination.documents(tasks, spec.eval.values()), spec.data.max_overlap)
    survey = survey or Survey(hub)
    for one in (spec, *replicates):
        survey.check(one, tokenizer, screen)
    return notes


def _chat_notes(spec: TrialSpec, tasks: Tasks, tokenizer: Any) -> list[str]:
    for role, evaluation in spec.eval.items():
        chat_prompts.check_tasks(role, evaluation, tasks)
    if tokenizer is None:
        return []
    chats = {role: evaluation for role, evaluation in spec.eval.items() if evaluation.chat_template}
    return [note for role, one in chats.items() for note in chat_prompts.check(role, one, tasks, tokenizer)]


def _tokenizer(spec: TrialSpec, hub: Hub) -> Any:
    """The tokenizer; None where it is part of weights that are not downloaded yet."""
    needed = spec.data.template == "chat" and not spec.is_baseline  # without it no row could be checked
    if spec.base.gguf is not None and not needed and gguf.file(spec.base, hub, fetch=False) is None:
        return None
    return base.tokenizer(spec.base, hub)
