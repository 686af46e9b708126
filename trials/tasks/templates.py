"""The templates of tasks: those of lm-eval, and of folders that a role trusts, are rendered here, all others in a process with
bounds. Both write what lm-eval would."""

from collections.abc import Mapping
from functools import cache
from typing import Any

import lm_eval.utils
from jinja2 import Template

from trials.errors import InputError
from trials.tasks.bounded_templates import BoundedTemplate
from trials.tasks.template_environment import Unrenderable, environment

_trusted: set[str] = set()
_places: dict[str, str] = {}


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


class _Explained:
    def __init__(self, template: Template | BoundedTemplate, source: str):
        self._template, self._source = template, source

    def render(self, **row: Any) -> str:
        try:
            return self._template.render(**row)
        except Exception as error:
            if self._source not in _places:
                raise
            reason = str(error) if isinstance(error, Unrenderable) else f"{type(error).__name__}: {error}"
            raise InputError(f"{_places[self._source]}: {' '.join(reason.split())}") from error


class _Environment:
    """Stands in for lm-eval's environment."""

    def __init__(self) -> None:
        self._own = environment()
        self._bounded = cache(BoundedTemplate)

    def from_string(self, source: str) -> _Explained:
        plain = not any(mark in source for mark in ("{{", "{%", "{#"))
        here = plain or source in _trusted
        return _Explained(self._own.from_string(source) if here else self._bounded(source), source)


def install() -> None:
    """Replaces lm-eval's environment in this process."""
    if not isinstance(lm_eval.utils.env, _Environment):
        lm_eval.utils.env = _Environment()
