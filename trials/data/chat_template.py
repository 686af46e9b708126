"""Renders a base's chat template as transformers does, within bounds of time and output.

A chat template is untrusted code from whoever published the base, and transformers' sandbox has no bounds. Here the template is
compiled in that same environment, so that it writes the same text, and every loop, call and operation is charged to a budget.
"""

import re
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any, cast

import jinja2
from jinja2 import nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment, SecurityError
from transformers.utils import chat_template_utils

from trials.data.sandbox import Budget, charged_filter, check_integers, check_operands, instrumented

_FILTERS = (
    *("abs", "capitalize", "count", "d", "default", "dictsort", "e", "escape", "first", "float", "indent", "int", "items"),
    *("join", "last", "length", "list", "lower", "map", "max", "min", "reject", "rejectattr", "replace", "reverse", "round"),
    *("safe", "select", "selectattr", "sort", "string", "striptags", "sum", "title", "tojson", "trim", "unique", "upper"),
)
_CALL = 20  # units: a macro call takes as long as so many steps of a loop
_CHARACTERS = 500_000  # of a template
_UNBOUNDED_GLOBALS = ("lipsum", "cycler", "joiner")
_GROWING = ("expandtabs", "translate", "center", "ljust", "rjust", "zfill")
"""Methods of a string whose result may be of any size."""
_WIDTH = re.compile(r"[%{][^%{}]*(?:\d{5}|\*|\{)")  # of a format that pads without end, or takes its width from a value


def bound() -> None:
    """Makes transformers render every chat template of this process within the bounds."""
    chat_template_utils._compile_jinja_template = compiled


@lru_cache(maxsize=8)
def compiled(text: str) -> jinja2.Template:
    """The compiled template, as transformers uses it. Rendering raises one of sandbox.ERRORS beyond the bounds."""
    if len(text) > _CHARACTERS:
        raise SecurityError(f"it has {len(text)} characters, more than {_CHARACTERS}")
    # the environment of an empty template: compiling this one there would already compute constants such as 'a' * 10**9
    environment = chat_template_utils._cached_compile_jinja_template("").environment
    budget = Budget()
    _Bounds(environment, budget)
    template: Any = environment.from_string(instrumented(environment.parse(text)))
    for name in ("render", "generate"):
        setattr(template, name, partial(_renewed, budget, getattr(template, name)))
    return cast(jinja2.Template, template)


def _renewed(budget: Budget, render: Callable[..., Any], **values: Any) -> Any:
    budget.renew(values.values())
    return render(**values)


@lru_cache(maxsize=8)
def marks_turns(text: str) -> bool:
    """Whether the template marks what the assistant writes by {% generation %} blocks whose places transformers knows.

    It does not know the place of a block inside a macro or another block whose text is written later.
    """
    if "generation" not in text:
        return False
    tree = chat_template_utils._cached_compile_jinja_template("").environment.parse(text)
    blocks = [node for node in tree.find_all(nodes.CallBlock) if _is_generation(node)]
    later = (nodes.Macro, nodes.CallBlock, nodes.FilterBlock, nodes.AssignBlock)
    buffered = {id(node) for outer in tree.find_all(later) for node in outer.find_all(nodes.CallBlock) if node is not outer}
    return bool(blocks) and not any(id(node) in buffered for node in blocks)


def _is_generation(node: nodes.CallBlock) -> bool:
    called = node.call.node
    return isinstance(called, nodes.ExtensionAttribute) and called.name == "_generation_support"


def with_turns(tokenizer: Any, template: str, messages: list[dict[str, Any]], tools: Any) -> tuple[str, list[tuple[int, int]]]:
    """The rendered text, and (begin, end) in characters of each {% generation %} block. Raises one of sandbox.ERRORS."""
    # as apply_chat_template does: many templates write a null as None
    given = [{key: value for key, value in message.items() if value is not None} for message in messages]
    texts, blocks = cast(
        Any,
        chat_template_utils.render_jinja_template(
            conversations=[given],
            tools=tools,
            chat_template=template,
            return_assistant_tokens_mask=True,
            **tokenizer.special_tokens_map,
        ),
    )  # its annotation is of a text alone
    return texts[0], blocks[0]


class _Bounds:
    """Makes an environment charge its work to a budget, and removes what can grow without bounds."""

    def __init__(self, environment: Any, budget: Budget):
        self._environment, self._budget = environment, budget
        environment.concat = budget.written
        environment.optimized = False  # nothing is computed at compile time, where no budget applies
        environment.intercepted_binops = frozenset(ImmutableSandboxedEnvironment.default_binop_table)
        environment.call_binop, environment.call = self._binop, self._call
        for name in _UNBOUNDED_GLOBALS:
            environment.globals.pop(name, None)
        kept = {name: charged_filter(environment, budget, name, self._before_filter) for name in _FILTERS}
        environment.filters = kept | budget.hooks()

    def _binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        if operator == "%" and isinstance(left, str):
            self._check_format(left, right if isinstance(right, tuple) else (right,))
        elif operator == "*" and not all(isinstance(one, (int, float)) for one in (left, right)):
            values, times = (left, right) if isinstance(right, int) else (right, left)
            self._budget.grown(len(values) * times * (1 if isinstance(values, str) else 32))
        else:
            check_operands(operator, left, right)
            self._budget.charged(left)
            self._budget.charged(right)
        found = ImmutableSandboxedEnvironment.call_binop(self._environment, context, operator, left, right)
        return self._budget.charged(found)

    def _call(self, context: Any, function: Any, *arguments: Any, **named: Any) -> Any:
        self._budget.spend(_CALL)
        bare = getattr(function, "__wrapped__", function)  # Jinja wraps a string's `format`
        owner, name = getattr(bare, "__self__", None), getattr(bare, "__name__", "")
        check_integers(name, (*arguments, *named.values()))
        if isinstance(owner, str):
            if name in _GROWING:
                raise SecurityError(f"{name} cannot be called in a chat template")
            if name in ("format", "format_map"):
                self._check_format(owner, (*arguments, *named.values()))
            elif name == "replace":
                self._budget.replaced(owner, *map(str, arguments[:2]))
            elif name == "join" and arguments:
                arguments = (list(arguments[0]),)
                self._budget.joined(len(arguments[0]), [owner])
        return self._budget.charged(
            ImmutableSandboxedEnvironment.call(self._environment, context, function, *arguments, **named)
        )

    def _check_format(self, text: str, values: tuple[Any, ...]) -> None:
        if _WIDTH.search(text):
            raise SecurityError("a format of such a width is not allowed in a chat template")
        self._budget.grown((text.count("%") + text.count("{")) * sum(len(str(value)) for value in values))

    def _before_filter(self, name: str, value: Any, arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
        """Charges a filter's result where it may be larger than its input."""
        if name == "join":
            value = list(value)
            self._budget.joined(len(value), (*arguments, *named.values()))
        elif name == "replace":
            self._budget.replaced(str(value), *map(str, arguments[:2]))
        elif name in ("indent", "tojson"):
            width = max([one if isinstance(one, int) else len(str(one)) for one in (*arguments, *named.values())], default=0)
            self._budget.grown(max(width, 1) * len(str(value)))
        return value
