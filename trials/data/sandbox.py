"""Renders untrusted row templates: no template runs code, writes much more than its row holds, or takes long.

The environment is Jinja's ImmutableSandboxedEnvironment, reduced to expressions, `if`, `for`, `set`, and the filters and
methods below. A budget bounds each rendering. Each value that an expression reads or computes costs its size, each step of a
loop one unit. Operations whose result may be larger than their operands are charged before they run.
"""

import json
import math
from collections.abc import Callable, ItemsView, Iterable, Iterator, KeysView, Mapping, ValuesView
from datetime import date, time, timedelta
from decimal import Decimal
from functools import partial
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment, SecurityError

_BUDGET = 2_000_000  # units of work: about a second at most
_CHARACTERS = 32  # characters per unit: copying a string is fast
_OUTPUT = 20_000_000  # characters
_TEMPLATE = 50_000  # characters
_BITS = 4_096  # of an integer
_ARGUMENT = 1_000_000  # the largest integer that a filter or a method takes
_VALUE = "_value"  # the variable that an expression is assigned to
_LANGUAGE = (
    *(nodes.Template, nodes.Output, nodes.TemplateData, nodes.If, nodes.For, nodes.Assign),
    *(nodes.Name, nodes.Const, nodes.Tuple, nodes.List, nodes.Dict, nodes.Pair, nodes.Keyword, nodes.Operand),
    *(nodes.CondExpr, nodes.Filter, nodes.Test, nodes.Call, nodes.Getitem, nodes.Getattr, nodes.Slice),
    *(nodes.Concat, nodes.Compare, nodes.BinExpr, nodes.UnaryExpr),
)
_FILTERS = (
    *("abs", "batch", "capitalize", "count", "d", "default", "dictsort", "first", "float", "int", "items", "join", "last"),
    *("length", "list", "lower", "map", "max", "min", "reject", "rejectattr", "replace", "reverse", "select", "selectattr"),
    *("sort", "string", "striptags", "sum", "title", "trim", "truncate", "unique", "upper", "wordcount"),
)
_METHODS: dict[type, tuple[str, ...]] = {
    str: (
        *("capitalize", "casefold", "count", "endswith", "find", "index", "isalnum", "isalpha", "isdigit", "islower"),
        *("isnumeric", "isspace", "isupper", "join", "lower", "lstrip", "partition", "removeprefix", "removesuffix"),
        *("replace", "rfind", "rindex", "rpartition", "rsplit", "rstrip", "split", "splitlines", "startswith", "strip"),
        *("swapcase", "title", "upper"),
    ),
    dict: ("get", "items", "keys", "values"),
    list: ("count", "index"),
    tuple: ("count", "index"),
}
_SCALARS = (str, int, float, Decimal, date, time, timedelta)
ERRORS = (
    *(jinja2.TemplateError, TypeError, ValueError, ArithmeticError, LookupError, AttributeError),
    *(RecursionError, SyntaxError, MemoryError),
)
"""Exceptions of a template that cannot be compiled or rendered."""


def reason(error: BaseException) -> str:
    """An exception's text in one line."""
    return " ".join(str(error).split()) or type(error).__name__


class Missing(str):
    """The value of a column that a row lacks: an empty string that also equals None."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return other is None or str.__eq__(self, other) is True

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = str.__hash__


MISSING = Missing()


def present(value: Any) -> Any:
    """The value with MISSING for null and NaN, at any depth."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return MISSING
    if isinstance(value, dict):
        return {name: present(inner) for name, inner in value.items()}
    return [present(inner) for inner in value] if isinstance(value, (list, tuple)) else value


class Budget:
    """The work that a rendering may still do; raises SecurityError when it is used up."""

    def __init__(self) -> None:
        self._left = _BUDGET
        self._given: set[int] = set()

    def renew(self, given: Iterable[Any] = ()) -> None:
        """Starts another rendering. A list or dict among or inside `given` costs no more to read than a number."""
        self._left, self._given = _BUDGET, set()
        todo = list(given)
        while todo:  # no recursion: a value may be nested deeper than Python's stack
            one = todo.pop()
            if isinstance(one, (list, tuple, dict)):
                self._given.add(id(one))
                todo += one.values() if isinstance(one, dict) else one

    def spend(self, units: int) -> None:
        self._left -= units
        if self._left < 0:
            raise SecurityError("it takes too many steps, or its texts are too large")

    def charged(self, value: Any) -> Any:
        """The value, after charging its size and that of everything inside it."""
        todo = [value]
        while todo:
            one = todo.pop()
            if id(one) in self._given:
                self.spend(1)
            elif isinstance(one, str):
                self.spend(1 + len(one) // _CHARACTERS)
            elif isinstance(one, (list, tuple)):
                self.spend(1 + len(one))
                todo += one
            elif isinstance(one, dict):
                self.spend(1 + 2 * len(one))
                todo += one.values()
            else:
                self.spend(1)
        return value

    def grown(self, characters: int) -> None:
        """Charges a string before it is made."""
        self.spend(max(characters, 0) // _CHARACTERS)

    def replaced(self, text: str, old: str, new: str) -> None:
        """Charges the result of a replacement before it is made."""
        self.grown(len(text) + text.count(old) * len(new))

    def joined(self, count: int, separators: Iterable[Any]) -> None:
        """Charges the separators of a join before it is made."""
        self.grown(count * max([len(str(one)) for one in separators], default=0))

    def steps(self, values: Iterable[Any]) -> Iterator[Any]:
        for value in values:
            self.spend(1)
            yield value

    def written(self, parts: Iterable[str]) -> str:
        """Joins the parts of a rendering."""
        kept, size = [], 0
        for part in parts:
            self.spend(1)
            size += len(part)
            if size > _OUTPUT:
                raise SecurityError(f"it writes more than {_OUTPUT} characters")
            kept.append(part)
        return "".join(kept)

    def hooks(self) -> dict[str, Callable[..., Any]]:
        """The filters that `instrumented` puts into a template."""
        return {
            "read value": uncached(self.charged),
            "loop over": uncached(self.steps),
            "concatenate": uncached(lambda *values: self.written(map(str, values))),
        }


def uncached(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function as a filter that Jinja does not fold into a constant: it folds none that takes the context."""
    return jinja2.pass_context(lambda _, *arguments, **named: function(*arguments, **named))


def charged_filter(environment: Any, budget: Budget, name: str, before: Callable[..., Any]) -> Callable[..., Any]:
    """The environment's filter with its integers checked and its result charged.

    `before(name, value, arguments, named)` charges a growing result and returns the value to filter.
    """
    function = environment.filters[name]

    @jinja2.pass_context
    def charged(context: Any, value: Any, *arguments: Any, **named: Any) -> Any:
        check_integers(name, (*arguments, *named.values()))
        value = before(name, value, arguments, named)
        return budget.charged(function(*_passed_first(function, context), value, *arguments, **named))

    return charged


def _passed_first(function: Callable[..., Any], context: Any) -> tuple[Any, ...]:
    """The arguments that Jinja passes to a filter before its value."""
    kind = getattr(function, "jinja_pass_arg", None)
    if kind is None:
        return ()
    return ({"context": context, "eval_context": context.eval_ctx, "environment": context.environment}[kind.name],)


def check_integers(name: str, arguments: Iterable[Any]) -> None:
    """Raises SecurityError for an integer argument with which a filter or method could write or loop without end."""
    for argument in arguments:
        if isinstance(argument, int) and abs(argument) > _ARGUMENT:
            raise SecurityError(f"{name}({argument}): the number is too large")


def check_operands(operator: str, left: Any, right: Any) -> None:
    """Raises SecurityError for an operation whose integer result would be too large."""
    if isinstance(left, int) and isinstance(right, int):
        bits = left.bit_length() * right if operator == "**" else left.bit_length() + right.bit_length()
        if bits > _BITS:
            raise SecurityError(f"{operator}: the number is too large")


class Sandbox(ImmutableSandboxedEnvironment):
    """Compiles and renders templates over the columns of rows. Not for use by several threads at once."""

    intercepted_binops = frozenset(ImmutableSandboxedEnvironment.default_binop_table)

    def __init__(self) -> None:
        # optimized=False: constant folding at compile time would not be charged
        super().__init__(undefined=jinja2.StrictUndefined, autoescape=False, finalize=self._written, optimized=False)
        self._budget = Budget()
        self.globals = {"range": self._range}  # `call` recognises this one bound method
        kept = {name: self.filters[name] for name in _FILTERS} | {"round": _round, "tojson": _json}
        self.filters = kept
        self.filters = {name: self._listing(charged_filter(self, self._budget, name, self._before_filter)) for name in kept}
        self.filters |= self._budget.hooks() | {"concatenate": uncached(self._concatenated)}
        self.tests["none"] = lambda value: value is None or isinstance(value, Missing)

    def compiled(self, text: str) -> Callable[[Mapping[str, Any]], str]:
        """A function that renders a row. Compiling and rendering raise one of ERRORS for what a template may not do."""
        return partial(self._rendered, self.from_string(instrumented(self._checked(text))))

    def expression(self, text: str) -> Callable[[Mapping[str, Any]], Any]:
        """A function that evaluates `{{ EXPRESSION }}` over a row to the value itself, such as a list. Raises as `compiled`."""
        tree = self._checked(text.strip())
        parts = tree.body[0].nodes if len(tree.body) == 1 and isinstance(tree.body[0], nodes.Output) else []
        if len(parts) != 1 or isinstance(parts[0], nodes.TemplateData):
            raise SecurityError("it must be one {{ expression }}, such as {{messages}}, and nothing else")
        tree.body = [nodes.Assign(nodes.Name(_VALUE, "store"), parts[0], lineno=1)]
        return partial(self._evaluated, self.from_string(instrumented(tree)))

    def _checked(self, text: str) -> nodes.Template:
        if len(text) > _TEMPLATE:
            raise SecurityError(f"it has {len(text)} characters, more than {_TEMPLATE}")
        tree = self.parse(text)
        for node in tree.find_all(nodes.Node):
            if not isinstance(node, _LANGUAGE) or (isinstance(node, nodes.For) and node.recursive):
                line = f"line {node.lineno}: " if text.count("\n") else ""
                raise SecurityError(f"{line}{type(node).__name__} is not allowed in a row template")
        return tree

    def _evaluated(self, template: jinja2.Template, row: Mapping[str, Any]) -> Any:
        self._budget.renew()
        context = template.new_context(dict(row))
        for _ in template.root_render_func(context):  # an assignment writes nothing
            pass
        value = context.vars[_VALUE]
        if isinstance(value, jinja2.Undefined):
            str(value)  # raises
        return restored(value)

    def _rendered(self, template: jinja2.Template, row: Mapping[str, Any]) -> str:
        self._budget.renew()
        return self._budget.written(template.generate(row))

    def _range(self, *bounds: int) -> range:
        made = range(*bounds)
        self._budget.spend(len(made))
        return made

    # ------------------------------------------------------------------ operations

    def _written(self, value: Any) -> str:
        if isinstance(value, jinja2.Undefined):
            return str(value)  # raises
        if value is None or (isinstance(value, float) and math.isnan(value)):
            return ""
        if not isinstance(value, _SCALARS):
            raise SecurityError(f"it would write {_named(value)} as Python prints it; select the texts inside it")
        text = str(value)
        self._budget.grown(len(text))
        return text

    def _concatenated(self, *values: Any) -> str:
        return "".join(map(self._written, values))

    def _before_filter(self, name: str, value: Any, arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
        if name == "join":
            value = [self._written(one) for one in value]
            self._budget.joined(len(value), (*arguments, *named.values()))
        elif name == "replace":
            self._budget.replaced(self._written(value), *map(str, arguments[:2]))
        elif name == "string":
            value = self._written(value)
        elif name == "batch":
            self._budget.spend(*[int(one) for one in arguments[:1]])
        return value

    def _listing(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The filter with a list as its result in place of a generator: a variable can then be read more than once."""
        return jinja2.pass_context(lambda *arguments, **named: self._listed(function(*arguments, **named)))

    def _listed(self, value: Any) -> Any:
        """A list in place of an iterator or of a view of a dictionary, which `{{ }}` and JSON have no form for."""
        one_pass = isinstance(value, (Iterator, KeysView, ValuesView, ItemsView))
        return [self._budget.charged(one) for one in value] if one_pass else value

    def call(__self, __context: Any, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # Jinja's own signature
        if __obj is __self.globals["range"]:
            return __self._range(*args)
        owner, name = getattr(__obj, "__self__", None), getattr(__obj, "__name__", "")
        if not any(isinstance(owner, kind) and name in names for kind, names in _METHODS.items()):
            raise SecurityError(f"{name or __obj!r} cannot be called in a row template")
        if name == "replace":
            __self._budget.replaced(str(owner), *map(str, args[:2]))
        if name == "join":
            args = ([__self._written(one) for one in args[0]],)
            __self._budget.joined(len(args[0]), [owner])
        return __self._listed(__self._budget.charged(__obj(*args, **kwargs)))

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        check_operands(operator, left, right)
        if operator == "%" and isinstance(left, str):
            raise SecurityError("% formats are not allowed in a row template; write the parts one after the other")
        if operator == "*":
            text, times = (left, right) if isinstance(right, int) else (right, left)
            if isinstance(text, str) and isinstance(times, int):
                self._budget.grown(len(text) * times)
            elif not isinstance(text, (int, float, Decimal)):
                raise SecurityError(f"{_named(text)} cannot be multiplied")
        elif operator == "+":  # copies both operands
            self._budget.charged(left)
            self._budget.charged(right)
        return self._budget.charged(super().call_binop(context, operator, left, right))


def _named(value: Any) -> str:
    kind = type(value).__name__
    return f"{'an' if kind[0] in 'aeiou' else 'a'} {kind}"


def _round(value: float, precision: int = 0) -> float:
    return round(value, precision)


def _json(value: Any, indent: int | None = None) -> str:
    """As in chat templates: without HTML escapes."""
    return json.dumps(restored(value), ensure_ascii=False, indent=indent and min(indent, 8), default=str)


def restored(value: Any) -> Any:
    """The inverse of `present`, with None for NaN too."""
    if isinstance(value, Missing):
        return None
    if isinstance(value, dict):
        return {name: restored(inner) for name, inner in value.items()}
    return [restored(inner) for inner in value] if isinstance(value, (list, tuple)) else value


def instrumented(tree: nodes.Template) -> nodes.Template:
    """The tree with hooks: reads are charged, loops counted, concatenations bounded."""
    for node in list(tree.find_all(nodes.Node)):
        for name, inner in list(node.iter_fields()):
            if isinstance(inner, list):
                setattr(node, name, [_hooked(one) if isinstance(one, nodes.Expr) else one for one in inner])
            elif isinstance(inner, nodes.Expr):
                setattr(node, name, _hooked(inner))
        if isinstance(node, nodes.For):
            assert isinstance(node.iter, nodes.Expr)
            node.iter = _filter("loop over", node.iter)
    return tree


def _hooked(node: nodes.Expr) -> nodes.Expr:
    if isinstance(node, nodes.Concat):
        return _filter("concatenate", node.nodes[0], *node.nodes[1:])
    reads = isinstance(node, (nodes.Name, nodes.Getattr, nodes.Getitem)) and node.ctx == "load"
    return _filter("read value", node) if reads else node


def _filter(name: str, node: nodes.Expr, *arguments: nodes.Expr) -> nodes.Filter:
    return nodes.Filter(node, name, list(arguments), [], None, None, lineno=node.lineno)
