"""The templates of tasks: those of lm-eval, and of folders that a role trusts, are rendered here, all others in a process with
bounds. Both write what lm-eval would."""

import ast
import threading
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import lm_eval.api.task
import lm_eval.utils

from trials.errors import InputError
from trials.printable import one_line
from trials.tasks import bounded_templates
from trials.tasks.template_environment import OutOfBounds, Unrenderable, environment

_REASON = 1_000  # characters

_environment = environment()
_trusted: set[str] = set()
_places: dict[str, str] = {}
_last = threading.local()
"""The text that the bounded process has written last, and its template's place."""


class NoLiteral(InputError, ValueError):
    """A template wrote no list, number or other literal where lm-eval reads one. lm-eval catches it as a ValueError."""


def trust(config: Any) -> None:
    """Lets this process render the texts within a task's config."""
    if isinstance(config, str):
        _trusted.add(config)
    elif isinstance(config, Mapping):
        trust(list(config.values()))
    elif isinstance(config, list | tuple):
        for one in config:
            trust(one)


def explain(places: Mapping[str, str]) -> None:
    """Makes an InputError of a row that a template cannot render: it begins with the template's place."""
    _places.update(places)


def apply_template(template: str, row: Mapping[str, Any]) -> str:
    """lm_eval.utils.apply_template, with bounds for a template that nobody trusts."""
    plain = not any(mark in template for mark in ("{{", "{%", "{#"))
    here = plain or template in _trusted
    try:
        text = _environment.from_string(template).render(row) if here else bounded_templates.render(template, row)
    except Exception as error:
        if here and template not in _places:
            raise
        reason = str(error) if isinstance(error, Unrenderable) else f"{type(error).__name__}: {error}"
        raise InputError(f"{_place(template)}: {one_line(reason)[:_REASON]}") from error
    _last.text, _last.place = None if here else text, _place(template)
    return text


def _place(template: str) -> str:
    return _places.get(template, "a template of a task folder")


def _literal(text: str) -> Any:
    """ast.literal_eval, with bounds for a text of a bounded template."""
    if text is not getattr(_last, "text", None):
        return ast.literal_eval(text)
    try:
        return bounded_templates.literal(text)
    except Unrenderable as error:
        kind = InputError if isinstance(error, OutOfBounds) else NoLiteral
        wrote = f"wrote {text[:80]!r}, which is no list or number"
        raise kind(f"{_last.place}: {wrote}: {one_line(error)[:_REASON]}") from error


def install() -> None:
    """Replaces lm-eval's rendering in this process."""
    lm_eval.utils.apply_template = apply_template
    lm_eval.api.task.ast = SimpleNamespace(literal_eval=_literal)  # type: ignore[assignment]
