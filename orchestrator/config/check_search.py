"""Checks of `search`: metrics, constraints, the budget, racing."""

import difflib
import math
from collections.abc import Iterator, Sequence

from analysis.metrics.definitions import (
    CHANCE_KINDS,
    CHANGES,
    CLASS_KINDS,
    FLEXIBLE_KINDS,
    GOLD_KINDS,
    JOINT_KINDS,
    MARKER_KINDS,
    PAIRED_KINDS,
)
from analysis.metrics.names import LEARNING, LEARNING_KINDS, Constraint, metric_names, parse_constraint, roles_of, split_metric
from orchestrator.config import racing
from orchestrator.config.model import GP_OBJECTIVES, SweepConfig
from orchestrator.config.shorthand import natural
from trials.errors import InputError
from trials.explain import Problem

_SHARES = ("acc", "acc_norm", "exact_match")
"""Metrics of lm-eval whose mean is a share of the documents."""
_RANGE = {
    **dict.fromkeys(("value", "base", *CHANGES), (0.0, 1.0)),
    **dict.fromkeys(("gain", "drop", "flexible_drop", "marker_drop", "stopped_drop", *CHANCE_KINDS), (-1.0, 1.0)),
    **dict.fromkeys(("forgetting", *JOINT_KINDS), (-math.inf, 1.0)),
}
"""Least and greatest value of each kind of metric, given such a mean."""
_LARGER = {"maximize": "larger", "minimize": "smaller"}


def problems(config: SweepConfig) -> Iterator[Problem]:
    search = config.search
    known = _measurable(config)
    if search.sampler != "grid" and search.trials is search.gpu_hours is search.hours is None:
        ends = f"only grid ends by itself, not {search.sampler}"
        yield ("search",), f"search: how many trials? Give trials, gpu_hours or hours; {ends}"
    if search.sampler == "gp" and len(search.objectives) > GP_OBJECTIVES:
        text = f"gp is too slow for more than {GP_OBJECTIVES} objectives; nsga3 is made for many"
        yield ("search", "sampler"), f"search.sampler: {text}"
    yield from _objectives(config, known)
    if search.racing and "racing" in search.model_fields_set:  # the default gives way: see load.settled
        yield from ((("search", "racing"), f"search.racing: {problem}") for problem in racing.obstacles(config))
    for i, text in enumerate(search.constraints):
        try:
            constraint = parse_constraint(text)
            problem = _metric_problem(constraint.metric, config, known) or _bound_problem(constraint, config)
        except InputError as error:
            problem = str(error)
        if problem:
            yield ("search", "constraints", i), f"search.constraints: {problem}"


def _objectives(config: SweepConfig, known: Sequence[str]) -> Iterator[Problem]:
    metrics = [objective.metric for objective in config.search.objectives]
    for i, (metric, objective) in enumerate(zip(metrics, config.search.objectives, strict=True)):
        problem, better = _metric_problem(metric, config, known), natural(metric)
        if problem is None and metric in metrics[:i]:
            problem = f"{metric!r} stands here twice"
        if problem:
            yield ("search", "objectives", i, "metric"), f"search.objectives: {problem}"
        elif better is not None and metric.rpartition(".")[2] != "value" and objective.direction != better:
            # of a role's own score the direction is known with its task: see preflight.check_metrics
            text = f"{metric} is better when {_LARGER[better]}, whatever its task measures; write direction: {better}"
            yield ("search", "objectives", i, "direction"), f"search.objectives: {text}"


def _bound_problem(constraint: Constraint, config: SweepConfig) -> str | None:
    """Refuses a bound that no trial or every trial keeps, such as 10 in place of 10 %."""
    kind = split_metric(constraint.metric)[1]
    roles = roles_of([constraint.metric])
    if (
        kind not in _RANGE
        or not roles
        or not all(role in config.eval and config.eval[role].metric in _SHARES for role in roles)
    ):
        return None
    low, high = _RANGE[kind]
    above, below = constraint.bound > high, constraint.bound < low
    if not above and not below:
        return None
    never = above if constraint.op == ">=" else below
    percent = abs(constraint.bound) <= 100
    hint = f'; for {constraint.bound:g} % write "{constraint.metric} {constraint.op} {constraint.bound:g}%"' if percent else ""
    return f"{str(constraint)!r} holds for {'no trial' if never else 'every trial'}: {kind} is a share{hint}"


def _measurable(config: SweepConfig) -> list[str]:
    """Names of all metrics that the sweep's trials can have."""
    names = metric_names(config.eval)
    for role, evaluation in config.eval.items():
        kinds = [*PAIRED_KINDS, *GOLD_KINDS]
        kinds += FLEXIBLE_KINDS if evaluation.flexible else ()
        kinds += (*MARKER_KINDS, *CLASS_KINDS) if evaluation.marker else ()
        names += [f"{role}.{kind}" for kind in kinds]
    return names + [f"{LEARNING}.{kind}" for kind in LEARNING_KINDS]


def _metric_problem(metric: str, config: SweepConfig, known: Sequence[str]) -> str | None:
    role, _, kind = metric.partition(".")
    if metric in known:
        one = config.eval.get(role)
        if one is not None and kind in MARKER_KINDS and "strict" in MARKER_KINDS[kind].columns and one.flexible == one.filter:
            return f"{metric!r} needs eval.{role}.flexible to be a laxer filter than eval.{role}.filter; both are {one.filter}"
        return None
    if "+" in role or kind in JOINT_KINDS:
        try:
            split_metric(metric, config.eval)
        except InputError as error:
            return str(error)
        return None
    if role not in config.eval and role != LEARNING:
        near = difflib.get_close_matches(metric, known, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        return f"{metric!r} names a role that is not evaluated; {hint}eval has {', '.join(config.eval)}"
    if kind in (*FLEXIBLE_KINDS, *MARKER_KINDS, *CLASS_KINDS):
        return f"{metric!r} needs eval.{role}.{'flexible' if kind in FLEXIBLE_KINDS else 'marker'}, as the presets have it"
    return f"no metric {metric!r}; there are {', '.join(name for name in known if name.startswith(role + '.'))}"
