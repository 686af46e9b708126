"""Renders a base's chat template as transformers does, within bounds of time and output.

A chat template is code of whoever published the base. transformers renders it in a sandbox that has no bounds. Here it is
compiled in the environment that transformers makes for it, so that it writes the same text, with every loop, call and operation
charged to the budget of trials.sandbox.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial
from typing import Any, cast

import jinja2
from jinja2.sandbox import ImmutableSandboxedEnvironment, SecurityError
from transformers.utils import chat_template_utils

from trials.data.sandbox import ARGUMENT, Budget, check_numbers, instrumented, passed_first

_FILTERS = (
    *("abs", "capitalize", "count", "d", "default", "dictsort", "e", "escape", "first", "float", "indent", "int", "items"),
    *("join", "last", "length", "list", "lower", "map", "max", "min", "reject", "rejectattr", "replace", "reverse", "round"),
    *("safe", "select", "selectattr", "sort", "string", "striptags", "sum", "title", "tojson", "trim", "unique", "upper"),
)
_CALL = 20  # units: a macro takes as long as so many steps of a loop
_CHARACTERS = 500_000  # of a template
_GROWING = ("expandtabs", "translate", "center", "ljust", "rjust", "zfill")
"""Methods of a text whose result may be of any size."""
_WIDTH = re.compile(r"[%{][^%{}]*(?:\d{5}|\*|\{)")  # of a format that pads without end, or takes its width from a value


def bound() -> None:
    """Has transformers render every chat template of this process within the bounds."""
    chat_template_utils._compile_jinja_template = compiled


@lru_cache(maxsize=8)
def compiled(text: str) -> jinja2.Template:
    """What transformers compiles of a chat template, bounded: rendering it raises one of sandbox.ERRORS beyond that."""
    if len(text) > _CHARACTERS:
        raise SecurityError(f"it has {len(text)} characters, more than {_CHARACTERS}")
    # made for an empty template: transformers' own compiler already computes constants, such as 10**9 letters
    environment, budget = chat_template_utils._cached_compile_jinja_template("").environment, Budget()
    _bind(environment, budget)
    template: Any = environment.from_string(instrumented(environment.parse(text)))
    for name in ("render", "generate"):
        setattr(template, name, partial(_renewed, budget, getattr(template, name)))
    return cast(jinja2.Template, template)


def _renewed(budget: Budget, render: Callable[..., Any], **values: Any) -> Any:
    budget.renew(values.values())
    return render(**values)


def _bind(environment: Any, budget: Budget) -> None:
    """Has the environment charge what it does to the budget, and leaves out what can grow without bounds."""
    kind = ImmutableSandboxedEnvironment
    environment.concat = budget.written
    environment.optimized = False  # nothing is computed while it compiles
    environment.intercepted_binops = frozenset(kind.default_binop_table)
    environment.call_binop = partial(_binop, environment, budget)
    environment.call = partial(_call, environment, budget)
    environment.globals = {
        name: value for name, value in environment.globals.items() if name not in ("lipsum", "cycler", "joiner")
    }
    kept = {name: _filter(budget, name, environment) for name in _FILTERS}
    environment.filters = kept | budget.hooks()


def _binop(environment: Any, budget: Budget, context: Any, operator: str, left: Any, right: Any) -> Any:
    if operator == "%" and isinstance(left, str):
        _check_format(budget, left, right if isinstance(right, tuple) else (right,))
    elif operator == "*" and not all(isinstance(one, (int, float)) for one in (left, right)):
        values, times = (left, right) if isinstance(right, int) else (right, left)
        budget.grown(len(values) * times * (1 if isinstance(values, str) else 32))
    else:
        check_numbers(operator, left, right)
        budget.charged(left)
        budget.charged(right)
    return budget.charged(ImmutableSandboxedEnvironment.call_binop(environment, context, operator, left, right))


def _call(environment: Any, budget: Budget, context: Any, function: Any, *arguments: Any, **named: Any) -> Any:
    budget.spend(_CALL)
    bare = getattr(function, "__wrapped__", function)  # Jinja wraps a text's `format`
    owner, name = getattr(bare, "__self__", None), getattr(bare, "__name__", "")
    _check_arguments(name, arguments, named)
    if isinstance(owner, str):
        if name in _GROWING:
            raise SecurityError(f"{name} cannot be called in a chat template")
        if name in ("format", "format_map"):
            _check_format(budget, owner, (*arguments, *named.values()))
        elif name == "replace":
            budget.replaced(owner, *map(str, arguments[:2]))
        elif name == "join" and arguments:
            arguments = (list(arguments[0]),)
            budget.grown(len(arguments[0]) * len(owner))
    return budget.charged(ImmutableSandboxedEnvironment.call(environment, context, function, *arguments, **named))


def _check_format(budget: Budget, text: str, values: tuple[Any, ...]) -> None:
    if _WIDTH.search(text):
        raise SecurityError("a format of such a width cannot stand in a chat template")
    budget.grown((text.count("%") + text.count("{")) * sum(len(str(value)) for value in values))


def _check_arguments(name: str, arguments: Sequence[Any], named: Mapping[str, Any]) -> None:
    for argument in (*arguments, *named.values()):
        if isinstance(argument, int) and abs(argument) > ARGUMENT:
            raise SecurityError(f"{name}({argument}): the number is too large")


def _filter(budget: Budget, name: str, environment: Any) -> Callable[..., Any]:
    """The environment's filter with its arguments and its result charged."""
    function = environment.filters[name]

    @jinja2.pass_context
    def charged(context: Any, value: Any, *arguments: Any, **named: Any) -> Any:
        _check_arguments(name, arguments, named)
        if name == "join":
            value = list(value)
            budget.grown(len(value) * max([len(str(one)) for one in arguments], default=0))
        elif name == "replace":
            budget.replaced(str(value), *map(str, arguments[:2]))
        elif name in ("indent", "tojson"):
            width = max([one if isinstance(one, int) else len(str(one)) for one in (*arguments, *named.values())], default=0)
            budget.grown(max(width, 1) * len(str(value)))
        return budget.charged(function(*passed_first(function, context, environment), value, *arguments, **named))

    return charged
