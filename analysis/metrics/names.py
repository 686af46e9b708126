"""Metrics by name, objectives, and constraints.

A metric is named "ROLE.KIND". KIND is one of KINDS or PART_KINDS (see `definitions`) or, for the role `learning`, one of
LEARNING_KINDS (see `stats.estimate.learning`). Of several roles, "ROLE+ROLE.KIND" with KIND one of JOINT_KINDS. Values are
shares (0..1, never percent), bits per byte or nats.
"""

import difflib
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict

from analysis.metrics.definitions import JOINT_KINDS, KINDS, PART_KINDS
from trials.errors import InputError

LEARNING = "learning"  # not a benchmark's role: the effect of the training on held-out rows
LEARNING_KINDS = ("loss", "gain", "kl", "reverse_kl")
ROUNDING = 1e-9  # tolerance for the arithmetic of shares


@dataclass(frozen=True)
class Estimate:
    """A metric's value and standard error in the metric's own unit; None where unknown."""

    value: float
    stderr: float | None
    paired: bool = False
    """Whether the standard error is paired over documents."""
    sd: float | None = None
    """Sample standard deviation between replicates; None for a single one, and for the base."""


class Objective(BaseModel):
    """An entry of a config's `search.objectives` and of a manifest."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    metric: str
    """ROLE.KIND, such as math.forgetting."""
    direction: Literal["maximize", "minimize"]
    """Which values are better."""


@dataclass(frozen=True)
class Constraint:
    """A bound on a metric; the bound itself is feasible."""

    metric: str
    op: Literal["<=", ">="]
    bound: float

    def violation(self, value: float | None) -> float:
        """Distance of `value` beyond the bound, in the metric's unit: <= 0 is feasible. Infinite for an undefined value."""
        if value is None or math.isnan(value):
            return math.inf
        beyond = value - self.bound if self.op == "<=" else self.bound - value
        # 36 right of 40 is a forgetting rate of 0.10000000000000009; a single document always moves more than ROUNDING
        return 0.0 if abs(beyond) < ROUNDING else beyond

    def __str__(self) -> str:
        return f"{self.metric} {self.op} {self.bound!r}"


@dataclass(frozen=True)
class Criteria:
    """The objectives and constraints that rank the trials of a sweep."""

    objectives: tuple[Objective, ...]
    constraints: tuple[Constraint, ...] = ()

    @property
    def metrics(self) -> tuple[str, ...]:
        """The objectives' metrics, then those of the constraints, each once."""
        wanted = [objective.metric for objective in self.objectives]
        return tuple(dict.fromkeys(wanted + [constraint.metric for constraint in self.constraints]))


def metric_names(roles: Iterable[str]) -> list[str]:
    """The metrics that every role has, role by role."""
    return [f"{role}.{kind}" for role in roles for kind in KINDS]


def split_metric(name: str, roles: Iterable[str] | None = None) -> tuple[str, str]:
    """Role and kind of a metric's name. With `roles` the role must be one of them. InputError names what is allowed."""
    role, _, kind = name.partition(".")
    parts = role.split("+")
    plain = all(part.isidentifier() for part in parts)
    kinds: tuple[str, ...] = (*KINDS, *PART_KINDS)
    shape = "ROLE.KIND"
    if len(parts) > 1:
        kinds, shape = JOINT_KINDS, "ROLE+ROLE.KIND, several benchmarks' roles without blanks,"
        twice = next((part for part in parts if parts.count(part) > 1), None)
        if plain and twice:
            raise InputError(f"{name}: the role {twice!r} is named twice; a metric of several roles names each once")
        plain = plain and LEARNING not in parts
    elif role == LEARNING:
        kinds = LEARNING_KINDS
    if not plain or kind not in kinds:
        near = difflib.get_close_matches(kind, kinds, 1)
        hint = f"; did you mean {role}.{near[0]}?" if near and plain else ""
        if len(parts) == 1 and kind in JOINT_KINDS:
            hint = f"; {kind} is of several roles: ROLE+ROLE.{kind}"
        raise InputError(f"a metric is {shape} with KIND one of {', '.join(kinds)}, but got {name!r}{hint}")
    for part in parts:
        if roles is not None and part not in (known := sorted(roles)) and part != LEARNING:
            meant = difflib.get_close_matches(part, known, 1)
            right = "+".join(sorted(meant[0] if one == part else one for one in parts)) if meant else ""
            hint = f"did you mean {right}.{kind}? " if meant else ""
            raise InputError(f"{name}: no benchmark has the role {part!r}; {hint}the roles are {', '.join(known)}")
    if parts != sorted(parts):
        raise InputError(f"{name}: write {'+'.join(sorted(parts))}.{kind}, the roles in the order of the alphabet")
    return role, kind


def roles_of(names: Iterable[str]) -> list[str]:
    """The benchmarks' roles that these metrics are of."""
    parts = (part for name in names for part in split_metric(name)[0].split("+"))
    return list(dict.fromkeys(part for part in parts if part != LEARNING))


def joint(names: Iterable[str]) -> list[str]:
    """Those of these metrics that are of several roles."""
    return [name for name in names if "+" in name.partition(".")[0]]


_SIDES = r"([^\s<>=≤≥]+)\s*([<>=≤≥]+)\s*([^\s<>=≤≥]+(?:\s*%)?)"
Operator = Literal["<=", ">="]
_OPERATORS: dict[str, Operator] = {"<=": "<=", "=<": "<=", "≤": "<=", ">=": ">=", "=>": ">=", "≥": ">="}
_STRICT: dict[str, Operator] = {"<": "<=", ">": ">="}
_TURNED: dict[Operator, Operator] = {"<=": ">=", ">=": "<="}


def parse_constraint(text: str, roles: Iterable[str] | None = None) -> Constraint:
    """Parses "math.forgetting <= 0.10", "math.forgetting <= 10 %" or "0.10 >= math.forgetting". InputError shows the form."""
    match = re.fullmatch(rf"\s*{_SIDES}\s*", text)
    shown = repr(text if len(text) < 80 else f"{text[:77]}...")
    shape = f'a constraint reads "METRIC <= NUMBER" or "METRIC >= NUMBER", as "math.forgetting <= 0.10", but got {shown}'
    if match is None:
        raise InputError(shape)
    left, written, right = match.groups()
    turned = _number(left) is not None
    metric, bound = (right, _number(left)) if turned else (left, _number(right))
    split_metric(metric, roles)
    if bound is None:
        raise InputError(shape)
    op = _OPERATORS.get(written) or _STRICT.get(written)
    if op is None:
        raise InputError(shape)
    found = Constraint(metric, _TURNED[op] if turned else op, bound)
    if written not in _OPERATORS:
        raise InputError(f'a bound may be reached: write "{found}", but got {shown}')
    return found


def _number(text: str) -> float | None:
    """A number or a percentage as a share; None where the text is no finite number."""
    bare = text.removesuffix("%").rstrip()
    try:
        value = float(bare) / (100 if text.endswith("%") else 1)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
