"""Counts of local training rows, as a trial would use them. Downloads nothing; only a chat template loads transformers."""

from collections.abc import Callable, Iterable
from functools import cache, partial
from pathlib import Path
from typing import Any

from orchestrator.planning.row_lengths import local_tokenizer
from trials.data import decontamination
from trials.data.survey import Survey
from trials.hub.hub import SELF, Hub
from trials.mix import Drawn
from trials.models import layout
from trials.spec import Base, TrialSpec
from trials.tasks.tasks import Tasks, check, check_room

_Load = Callable[[Base], Any]
"""Returns a base's tokenizer, and loads it once."""


def count(specs: Iterable[TrialSpec], hub: Hub, tasks: Tasks) -> tuple[dict[str, Drawn], list[str]]:
    """(counts, notes). Counts by source, for the trial that needs most of its rows.

    Raises InputError for a source that cannot be read or rendered or has too few usable rows, and for a bundled task without
    the documents, few-shot rows or metric of its role.
    """
    survey, notes = Survey(hub, fetch=False), set()
    load = cache(partial(_chat_tokenizer, hub))
    roles: set[tuple[str, ...]] = set()
    tokenizers: dict[tuple[str, str], Any] = {}
    for spec in specs:
        for role, evaluation in spec.eval.items():
            known = (role, evaluation.model_dump_json(), spec.base.model_dump_json())
            if known not in roles:
                notes |= _check_role(role, spec, hub, tasks, load)
            roles.add(known)
        if spec.is_baseline:
            continue
        same = (spec.base.model_dump_json(), spec.data.template)
        if same not in tokenizers:
            tokenizers[same] = _tokenizer(spec, hub, load)
        tokenizer = tokenizers[same]
        if tokenizer is None:
            notes.add("rows are not compared with max_length here; `run` does it before any trial")
        screen = None
        if all(map(tasks.at_hand, spec.eval.values())):
            screen = decontamination.Screen(decontamination.documents(tasks, spec.eval.values()), spec.data.max_overlap)
        else:
            notes.add("rows that overlap with test documents are not counted here; `run` leaves them out")
        survey.check(spec, tokenizer, screen)
        if absent := sorted(spec.data.shares.keys() - survey.drawn().keys() - {SELF}):
            notes.add(f"not counted before they are fetched: rows of {', '.join(absent)}")
    return survey.drawn(), sorted(notes)


def _check_role(role: str, spec: TrialSpec, hub: Hub, tasks: Tasks, load: _Load) -> set[str]:
    """Checks what is on this machine of a role's tasks and of its chat template; returns notes."""
    evaluation = spec.eval[role]
    at_hand = tasks.at_hand(evaluation)
    if at_hand:
        check(role, evaluation, tasks)
        if found := layout.known(spec.base, hub):
            check_room(role, evaluation, tasks, found[1].longest)
    if not evaluation.chat_template or not Path(hub.locate(spec.base.model)).is_dir():
        return set()
    from trials.tasks import chat_prompts

    tokenizer = load(spec.base)
    if at_hand:
        return set(chat_prompts.check(role, evaluation, tasks, tokenizer))
    chat_prompts.ChatPrompts(role, evaluation, tokenizer)
    return set()


def _tokenizer(spec: TrialSpec, hub: Hub, load: _Load) -> Any:
    """A tokenizer of local files for the spec's rows; None without one."""
    found = local_tokenizer(spec.base, hub)
    if found is None or spec.data.template != "chat":
        return found
    from trials.models import base

    base.check_template(spec.base, spec.data, load(spec.base))
    return load(spec.base)


def _chat_tokenizer(hub: Hub, wanted: Base) -> Any:
    """A tokenizer that renders chat templates."""
    from trials.models import base  # imports transformers and torch, which a plan without a chat template need not wait for

    return base.tokenizer(wanted, hub)
