"""The Jinja environment of tasks' templates: lm-eval's own, in a sandbox. What a template writes is the same.

In lm-eval's environment a template could reach any Python object, and thus run code that nobody has trusted. The bounded
sandbox of trials/data/sandbox.py would write other texts: it has fewer filters and methods, none of them lm-eval's, and shows
null as an empty text.
"""

import re
from datetime import date, time, timedelta
from functools import cache
from typing import Any

import lm_eval.utils
from jinja2 import BaseLoader, StrictUndefined, Template, TemplateError, UndefinedError
from jinja2.exceptions import SecurityError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from trials.explain import nearest

_DATA = ("builtins", "datetime", "decimal", "jinja2.runtime", "jinja2.utils")
"""Modules of the types whose methods a template may call. An array or an image of a row could write a file."""
_OF_ARRAYS = ("all", "any", "astype", "max", "mean", "min", "round", "sum")
"""Methods of numpy's arrays and numbers that only compute."""


class Unrenderable(TemplateError):
    """A template cannot render a row."""


class OutOfBounds(Unrenderable):
    """It would need more than the bounds permit."""


class UnknownColumn(Unrenderable, UndefinedError):
    """A template names something that the row does not have. Its text lists the columns."""

    def __init__(self, reason: str, columns: list[str]):
        name = re.match(r"'(.*)' is undefined$", reason)
        near = nearest(name[1], columns) if name else None
        super().__init__(f"{reason}; {f'did you mean {near!r}? ' if near else ''}the columns are {', '.join(columns)}")


class _Template(Template):
    def render(self, *args: Any, **kwargs: Any) -> str:
        row = dict(*args, **kwargs)
        try:
            return super().render(row)
        except UndefinedError as error:
            raise UnknownColumn(str(error), [str(column) for column in row]) from None


class _Environment(ImmutableSandboxedEnvironment):
    template_class = _Template

    def call(__self, __context: Any, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # Jinja's own signature
        owner = getattr(__obj, "__self__", None)
        data = type(owner).__module__ in _DATA or isinstance(owner, date | time | timedelta)
        computes = type(owner).__module__ == "numpy" and __obj.__name__ in _OF_ARRAYS
        if not (data or computes or __obj.__name__ in ("item", "tolist")):
            raise SecurityError(f"{__obj.__name__} of {type(owner).__name__} cannot be called in a template")
        return super().call(__context, __obj, *args, **kwargs)


def environment() -> ImmutableSandboxedEnvironment:
    """A new environment, in which each template is compiled once."""
    made = _Environment(loader=BaseLoader(), undefined=StrictUndefined, keep_trailing_newline=True)
    made.filters["regex_replace"] = lm_eval.utils.regex_replace
    made.globals["range"] = range  # the sandbox's own ends at 100,000
    # lm-eval compiles a template anew for every text: a third of the time of a small model's trial
    made.from_string = cache(made.from_string)  # type: ignore[assignment,method-assign]
    return made
