"""Pins a spec to the content of its first run: commits of the hub, checksums of local files, the date of a chat template."""

import datetime as dt

from trials.hub import identity
from trials.hub.hub import SELF, Hub, commit_of
from trials.spec import Base, TrialSpec


def template_is_dated(base: Base, hub: Hub) -> bool:
    """Whether the base's chat template writes the current date."""
    from trials.models.base import tokenizer  # imports transformers, which pins of other sections do not need

    return "strftime_now" in str(tokenizer(base, hub).chat_template)


def pinned(spec: TrialSpec, hub: Hub) -> TrialSpec:
    """The spec with all pins; existing ones stay unchanged."""
    base, data = spec.base, spec.data
    today = _date(spec, hub)
    if base.content is None and (pin := identity.of_base(base, hub)):
        commit = commit_of(pin)
        # a commit is a revision that everybody can load; a checksum can only be compared
        base = base.model_copy(update={"revision": commit} if commit else {"content": pin})
    if not spec.is_baseline:
        found = {name: identity.of_source(data, name, hub) for name in data.shares.keys() - data.content.keys() - {SELF}}
        date = today if data.template == "chat" and data.date is None else data.date
        data = data.model_copy(update={"content": data.content | _known(found), "date": date})
    roles = {}
    for role, evaluation in spec.eval.items():
        pins: dict[str, str | None] = {}
        for task in evaluation.tasks:
            pins |= identity.of_task(task, evaluation.include, hub, evaluation.content)
        date = today if evaluation.chat_template and evaluation.date is None else evaluation.date
        roles[role] = evaluation.model_copy(update={"content": _known(pins) | evaluation.content, "date": date})
    return spec.model_copy(update={"base": base, "data": data, "eval": roles})


def _date(spec: TrialSpec, hub: Hub) -> dt.date | None:
    """The date for chat templates whose spec has none: that of its other templates, else today. None if none writes a date."""
    dates = [one.date for one in spec.eval.values() if one.chat_template]
    dates += [spec.data.date] if spec.data.template == "chat" and not spec.is_baseline else []
    if None not in dates or not template_is_dated(spec.base, hub):
        return None
    return next((date for date in reversed(dates) if date), None) or dt.date.today()


def _known(pins: dict[str, str | None]) -> dict[str, str]:
    return {name: pin for name, pin in pins.items() if pin}
