"""Jinja templates of tasks run in a sandbox with bounded output and time, and each is compiled once.

lm-eval renders the templates of a task's YAML in an environment in which a template could reach any Python object, and thus run
code that nobody has trusted; and it could write or loop without end. Here it cannot; what it writes is the same.

The sandbox of trials/data/sandbox.py would write other texts: it has fewer filters and methods, none of them lm-eval's, and
shows null as an empty text. The work is counted in the same way.
"""

import re
import threading
from collections.abc import Callable
from functools import cache
from typing import Any

import lm_eval.utils
import regex
from jinja2 import BaseLoader, StrictUndefined, Template, UndefinedError
from jinja2.exceptions import SecurityError
from jinja2.sandbox import SandboxedEnvironment

from trials.data.sandbox import Budget, charged_filter, check_integers, check_operands, instrumented, uncached
from trials.explain import nearest

_WORK = 10_000_000  # units of work of a rendering: some seconds at most
_CALL = 20  # units that a call of a method or a macro costs
_REGEX = 2.0  # seconds of a regular expression over a text
_WIDTH = re.compile(r"\d{5,}|:[^{}]*\{")  # in a format string: a width of 10,000 characters and more, or one that is a value
_INDENT = 100  # characters, of JSON and of Python values


class UnknownColumn(UndefinedError):
    """A template names something that the row does not have. Its text lists the columns."""

    def __init__(self, error: UndefinedError, template: str, columns: list[str]):
        self.template = template
        name = re.match(r"'(.*)' is undefined$", str(error))
        near = nearest(name[1], columns) if name else None
        super().__init__(f"{error}; {f'did you mean {near!r}? ' if near else ''}the columns are {', '.join(columns)}")


class _Work(threading.local):
    """The budget of the rendering that is under way in a thread."""

    def __init__(self) -> None:
        self.budget = Budget(_WORK)


_work = _Work()


class _Template(Template):
    text = ""

    def render(self, *args: Any, **row: Any) -> str:
        _work.budget.renew(row.values())
        try:
            return _work.budget.written(self.generate(*args, **row))
        except UndefinedError as error:
            raise UnknownColumn(error, self.text, list(row)) from None


class _Environment(SandboxedEnvironment):
    template_class = _Template
    intercepted_binops = frozenset(SandboxedEnvironment.default_binop_table)

    def __init__(self, filters: dict[str, Callable[..., Any]]) -> None:
        # optimized=False: what is folded into a constant as a template is compiled is not charged
        super().__init__(loader=BaseLoader(), undefined=StrictUndefined, keep_trailing_newline=True, optimized=False)
        del self.globals["lipsum"]  # random text of any length
        self.filters |= filters | {"regex_replace": _regex_replaced}
        self.filters = {name: charged_filter(self, _current, name, _before) for name in self.filters}
        self.filters |= {
            "read value": uncached(lambda value: _work.budget.charged(value)),
            "loop over": uncached(lambda values: _work.budget.steps(values)),
            "concatenate": uncached(lambda *values: _work.budget.written(map(str, values))),
        }

    def from_string(self, source: Any, *args: Any, **settings: Any) -> Template:
        made = super().from_string(instrumented(self.parse(source)), *args, **settings)
        made.text = source  # type: ignore[attr-defined]
        return made

    def call(__self, __context: Any, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # Jinja's own signature
        plain = getattr(__obj, "__wrapped__", __obj)  # Jinja wraps str.format
        owner, name = getattr(plain, "__self__", None), getattr(plain, "__name__", "")
        check_integers(name, (*args, *kwargs.values()))
        _work.budget.spend(_CALL)
        if isinstance(owner, str):
            _charge_method(owner, name, args)
        return _work.budget.charged(super().call(__context, __obj, *args, **kwargs))

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        check_operands(operator, left, right)
        if operator == "%" and isinstance(left, str):
            _check_format(left, right if isinstance(right, tuple) else (right,))
        if operator == "*":
            for many, times in ((left, right), (right, left)):
                if isinstance(times, int) and isinstance(many, (str, list, tuple)):
                    _work.budget.spend(max(times, 0) * (1 + len(many)))
        elif operator == "+":  # copies both operands
            _work.budget.charged(left)
            _work.budget.charged(right)
        return _work.budget.charged(super().call_binop(context, operator, left, right))


class _Current:
    """The budget of the calling thread, for filters that are made once."""

    def charged(self, value: Any) -> Any:
        return _work.budget.charged(value)


_current: Any = _Current()


def _charge_method(text: str, name: str, args: tuple[Any, ...]) -> None:
    """Charges a string's method before it runs, where the result may be larger than the string."""
    if name == "replace":
        _work.budget.replaced(text, *map(str, args[:2]))
    elif name == "join":
        _work.budget.joined(len(args[0]) if hasattr(args[0], "__len__") else 0, [text])
    elif name == "expandtabs":
        _work.budget.grown(text.count("\t") * int(args[0] if args else 8))
    elif name in ("format", "format_map"):
        _check_format(text)


def _check_format(text: str, values: tuple[Any, ...] = ()) -> None:
    """Raises SecurityError for a format string that could write a lot. `values`: those that a % may take for a width."""
    if _WIDTH.search(text):
        raise SecurityError("a format with a width of 10,000 characters and more, or one that is a value")
    check_integers("a format's width", [value for value in values if "*" in text])


def _before(name: str, value: Any, arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
    """Charges a filter before it runs, where the result may be larger than the value."""
    given = (*arguments, *named.values())
    if name == "replace":
        _work.budget.replaced(str(value), *map(str, given[:2]))
    elif name == "join":
        value = list(value)
        _work.budget.joined(len(value), given)
    elif name == "indent":
        _work.budget.grown(
            (str(value).count("\n") + 1) * max([len(one) if isinstance(one, str) else one for one in given], default=4)
        )
    elif name == "wordwrap":
        breaks = [len(one) for one in given if isinstance(one, str)]
        _work.budget.grown(len(str(value)) * max(breaks, default=1))
    elif name in ("batch", "slice"):
        _work.budget.spend(max([one for one in given if isinstance(one, int)], default=1))
    elif name == "format":
        _check_format(str(value), given)
    elif name in ("tojson", "pprint") and any(isinstance(one, int) and one > _INDENT for one in given):
        raise SecurityError(f"{name} with an indent of more than {_INDENT}")
    return value


def _regex_replaced(string: str, pattern: str, repl: str, count: int = 0) -> str:
    """lm-eval's filter, with an end: a regular expression may take longer than anybody waits."""
    try:
        found: str = regex.sub(pattern, repl, string, count=count, timeout=_REGEX)
    except TimeoutError:
        raise SecurityError(f"regex_replace({pattern!r}) takes more than {_REGEX:g} s") from None
    return found


def install() -> None:
    """Replaces lm-eval's environment in this process."""
    if isinstance(lm_eval.utils.env, SandboxedEnvironment):
        return
    made = _Environment(lm_eval.utils.env.filters)
    # lm-eval compiles a template anew for every text: a third of the time of a small model's trial
    made.from_string = cache(made.from_string)  # type: ignore[method-assign]
    lm_eval.utils.env = made
