"""What is wrong with a config whose types are right: unknown names, values that no trial takes, contradictions."""

import difflib
import math
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from analysis.metrics.definitions import CLASS_KINDS, FLEXIBLE_KINDS, GOLD_KINDS, MARKER_KINDS
from analysis.metrics.names import LEARNING, LEARNING_KINDS, Constraint, metric_names, parse_constraint, split_metric
from orchestrator.config.parameters import PAIRED, Categorical, Paired, Simplex
from orchestrator.config.shorthand import scalars
from orchestrator.config.space import Axis, Mixture, Pairs, Single, axis, corners, every_point, with_parents
from trials import dotted_path
from trials.dotted_path import MIX
from trials.errors import InputError
from trials.explain import Place, found
from trials.explain import problems as explained
from trials.spec import TrialSpec

if TYPE_CHECKING:
    from orchestrator.config.model import SweepConfig

Problem = tuple[Place, str]
_SECTIONS = tuple(name for name in TrialSpec.model_fields if name != "derive")
_SEEDS = {"data.seed", "train.seed"}
_BASELINES = 1_000
_GP_OBJECTIVES = 4  # the boxes into which Optuna's GP sampler cuts the space of objectives multiply beyond that
_SHARES = ("acc", "acc_norm", "exact_match")
"""Metrics of lm-eval whose mean is a share of the documents."""
_RANGE = {
    **dict.fromkeys(("value", "base"), (0.0, 1.0)),
    **dict.fromkeys(("gain", "drop", "flexible_drop", "marker_drop", "stopped_drop"), (-1.0, 1.0)),
    "forgetting": (-math.inf, 1.0),
}
"""Of the metrics made of such means: the least and the greatest value."""


def problems(config: "SweepConfig") -> Iterator[Problem]:
    """Every problem with the place in the file that it concerns."""
    yield from _search(config)
    structure = list(_structure(config))
    yield from structure or [
        *_values(config),
        *_only_of(config),
        *_derived(config),
    ]  # a point can be tried only in a space whose names and conditions are right


# ---------------------------------------------------------------------- search


def _search(config: "SweepConfig") -> Iterator[Problem]:
    search = config.search
    known = measurable(config)
    if search.sampler != "grid" and search.trials is search.gpu_hours is search.hours is None:
        yield (
            ("search",),
            (f"search: how many trials? Give trials, gpu_hours or hours; only grid ends by itself, not {search.sampler}"),
        )
    if search.sampler == "gp" and len(search.objectives) > _GP_OBJECTIVES:
        yield (
            ("search", "sampler"),
            (f"search.sampler: gp is too slow for more than {_GP_OBJECTIVES} objectives; nsga3 is made for many"),
        )
    metrics = [objective.metric for objective in search.objectives]
    for i, metric in enumerate(metrics):
        problem = _metric_problem(metric, config, known)
        if problem is None and metric in metrics[:i]:
            problem = f"{metric!r} stands here twice"
        if problem:
            yield ("search", "objectives", i, "metric"), f"search.objectives: {problem}"
    if search.racing:
        yield from (((("search", "racing")), f"search.racing: {problem}") for problem in _racing(config))
    for i, text in enumerate(search.constraints):
        try:
            constraint = parse_constraint(text)
            problem = _metric_problem(constraint.metric, config, known) or _bound_problem(constraint, config)
        except InputError as error:
            problem = str(error)
        if problem:
            yield ("search", "constraints", i), f"search.constraints: {problem}"


def _bound_problem(constraint: Constraint, config: "SweepConfig") -> str | None:
    """A bound beyond any share: no trial meets it, or every trial does, as where 10 was written for 10 %."""
    role, kind = split_metric(constraint.metric)
    if role not in config.eval or config.eval[role].metric not in _SHARES or kind not in _RANGE:
        return None
    low, high = _RANGE[kind]
    above, below = constraint.bound > high, constraint.bound < low
    if not above and not below:
        return None
    never = above if constraint.op == ">=" else below
    percent = abs(constraint.bound) <= 100
    hint = f'; for {constraint.bound:g} % write "{constraint.metric} {constraint.op} {constraint.bound:g}%"' if percent else ""
    return f"{str(constraint)!r} holds for {'no trial' if never else 'every trial'}: {kind} is a share{hint}"


def _racing(config: "SweepConfig") -> Iterator[str]:
    if config.search.replicates > 1:
        yield "a trial is judged by itself, so it needs search.replicates: 1"
    if config.derive.points()[1:]:
        yield "what is derived from a trial's training would be given up with it, unseen; leave out `derive`, or racing"
    for role in dict.fromkeys(objective.metric.partition(".")[0] for objective in config.search.objectives):
        evaluation = config.eval.get(role)
        varied = [path for path in config.paths() if path.startswith(f"eval.{role}.")]
        if varied:
            yield f"trials are compared document by document, so that {varied[0]} cannot be searched"
        if evaluation is not None and evaluation.sampler != "first_n" and evaluation.shots != 0:
            yield (
                f"few-shot rows of eval.{role} would be drawn document by document, so that a part of these would get others "
                "than all of them; give it fewshot: first_n, or shots: 0"
            )


def _only_of(config: "SweepConfig") -> Iterator[Problem]:
    """What is wrong with the settings from whose trainings alone points are derived."""
    known = searchable(config)
    for path, value in config.derive.of.items():
        place = ("derive", "of", path)
        if path not in known:
            yield place, f"derive.of: {_unknown(path, config, known)}"
        elif not _attained(config, path, value):
            yield place, f"derive.of: {path} is never {found(value)}"


def _attained(config: "SweepConfig", path: str, value: Any) -> bool:
    """Whether some training has this value of the setting."""
    current = next((axis for axis in config.axes if path in axis.paths), None)
    if current is None or current.when:
        own = dotted_path.read(config, path)
        if own == value and isinstance(own, bool) == isinstance(value, bool):
            return True
    if isinstance(current, Single):
        return current.parameter.holds(value)
    if isinstance(current, Pairs):
        return any(point[path] == value for point in current.choices)
    return current is not None  # a share of a simplex


def _derived(config: "SweepConfig") -> Iterator[Problem]:
    for point in config.derive.points()[1:]:
        if not any(True for _ in config.corners(("derive.", "lora.", "train.", "data."), point)):
            name = next(path for path, value in point.items() if value != config.derive.points()[0][path])
            reason = _invalid(config, point) or f"{name} {point[name]} goes with no point of the space"
            yield ("derive", name.partition(".")[2]), reason


def measurable(config: "SweepConfig") -> list[str]:
    """Every metric that the sweep's trials can have."""
    names = metric_names(config.eval)
    for role, evaluation in config.eval.items():
        kinds = [*GOLD_KINDS]
        kinds += FLEXIBLE_KINDS if evaluation.flexible else ()
        kinds += (*MARKER_KINDS, *CLASS_KINDS) if evaluation.marker else ()
        names += [f"{role}.{kind}" for kind in kinds]
    return names + [f"{LEARNING}.{kind}" for kind in LEARNING_KINDS]


def _metric_problem(metric: str, config: "SweepConfig", known: Sequence[str]) -> str | None:
    if metric in known:
        return None
    role = metric.partition(".")[0]
    if role not in config.eval and role != LEARNING:
        near = difflib.get_close_matches(metric, known, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        return f"{metric!r} names a role that is not evaluated; {hint}eval has {', '.join(config.eval)}"
    if (kind := metric.partition(".")[2]) in (*FLEXIBLE_KINDS, *MARKER_KINDS, *CLASS_KINDS):
        return f"{metric!r} needs eval.{role}.{'flexible' if kind in FLEXIBLE_KINDS else 'marker'}, as the presets have it"
    return f"no metric {metric!r}; there are {', '.join(name for name in known if name.startswith(role + '.'))}"


# ---------------------------------------------------------------------- the space's names and conditions


def searchable(config: "SweepConfig") -> list[str]:
    """Every dotted path that a trial's numbers depend on."""
    return sorted(path for section in _SECTIONS for path in dotted_path.paths(section, getattr(config, section)))


def _structure(config: "SweepConfig") -> Iterator[Problem]:
    known = searchable(config)
    for path, parameter in config.space.items():
        place = ("space", path)
        if path == PAIRED and isinstance(parameter, Paired):
            yield from _paired(config, parameter, known)
        elif path == PAIRED or isinstance(parameter, Paired):
            yield place, f"space: a list of points stands under `{PAIRED}`, one parameter under its path, but got {path!r}"
        elif isinstance(parameter, Simplex):
            yield from _simplex(config, path, parameter)
        elif path not in known:
            yield place, f"space: {_unknown(path, config, known)}"
        yield from _conditions(config, path, parameter)
    yield from _circle(config)


def _unknown(path: str, config: "SweepConfig", known: Sequence[str]) -> str:
    near = [name for name in known if name.endswith(f".{path}")] or difflib.get_close_matches(path, known, n=1)
    hint = f"did you mean {' or '.join(map(repr, near[:3]))}?" if near else f"paths start with {', '.join(_SECTIONS)}"
    if path.startswith(f"{MIX}."):
        hint = f"name the source in {MIX} too; there are {', '.join(config.data.mix)}"
    if path == MIX:
        hint = "its shares are searched one by one, or together by `type: simplex`"
    return f"no setting {path!r}; {hint}"


def _paired(config: "SweepConfig", parameter: Paired, known: Sequence[str]) -> Iterator[Problem]:
    paths = list(parameter.root[0])
    if not paths:
        yield ("space", PAIRED, 0), f"space: a point of `{PAIRED}` names at least one setting"
    for path in paths:
        if path not in known:
            yield ("space", PAIRED, 0, path), f"space: {_unknown(path, config, known)}"
        elif path in config.space:
            yield ("space", path), f"space: {path} is varied by `{PAIRED}` already"
    for i, point in enumerate(parameter.root):
        if set(point) != set(paths):
            yield ("space", PAIRED, i), f"space: the points of `{PAIRED}` name the same settings, here {', '.join(paths)}"
            return
    labels = Pairs(tuple(paths), {}, choices=parameter.root).labels()
    for i, label in enumerate(labels):
        if label in labels[:i]:
            yield ("space", PAIRED, i), f"space: the point {label} of `{PAIRED}` stands there twice"


def _simplex(config: "SweepConfig", path: str, parameter: Simplex) -> Iterator[Problem]:
    place = ("space", path)
    if path != MIX:
        yield place, f"space: a simplex is the whole of {MIX}, but got {path!r}"
        return
    mix = config.data.mix
    unknown = [source for source in parameter.sources or () if source not in mix]
    if unknown:
        yield (*place, "sources"), f"space: {MIX} has no source {unknown[0]!r}; there are {', '.join(mix)}"
        return
    others = [*(other for other in config.space if other.startswith(f"{MIX}.")), *_paths_of_pairs(config, f"{MIX}.")]
    if others:
        yield place, f"space: {others[0]} and the simplex over {MIX} both set its shares"
    mixture = axis(path, parameter, mix)
    assert isinstance(mixture, Mixture)
    if len(mixture.paths) < 2:
        yield place, f"space: a simplex needs two sources; {MIX} has {', '.join(mix)}"
    elif mixture.total == 0:
        yield place, f"space: {', '.join(mixture.sources)} have no share in {MIX} that could be searched"
    elif parameter.step and (not mixture.units or abs(mixture.units * parameter.step - mixture.total) > 1e-6):
        yield (*place, "step"), f"space: step {parameter.step:g} does not divide the share {mixture.total:g} of these sources"


def _paths_of_pairs(config: "SweepConfig", prefix: str = "") -> list[str]:
    paired = config.space.get(PAIRED)
    return [path for path in paired.root[0] if path.startswith(prefix)] if isinstance(paired, Paired) else []


def _conditions(config: "SweepConfig", path: str, parameter: Any) -> Iterator[Problem]:
    paired = config.space.get(PAIRED)
    for parent, wanted in getattr(parameter, "when", {}).items():
        place = ("space", path, "when", parent)
        above = config.space.get(parent)
        if isinstance(above, Categorical):
            choices: list[Any] = list(above.choices)
        elif isinstance(paired, Paired) and parent in paired.root[0]:
            choices = [point.get(parent) for point in paired.root]
        else:
            named = [name for name, other in config.space.items() if isinstance(other, Categorical)] + _paths_of_pairs(config)
            near = difflib.get_close_matches(parent, named, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(named) or 'none'}"
            yield place, f"space: {path}: `when` names a categorical parameter of the space, but got {parent!r}; {hint}"
            continue
        for value in wanted if isinstance(wanted, tuple) else (wanted,):
            if value not in choices:
                yield place, f"space: {path}: {parent} is never {value!r}; its values are {', '.join(map(repr, choices))}"


def _circle(config: "SweepConfig") -> Iterator[Problem]:
    """The parameters that wait for one another, or for themselves."""
    parents = {path: set(getattr(parameter, "when", {})) for path, parameter in config.space.items()}
    while free := [path for path, above in parents.items() if not above & parents.keys()]:
        for path in free:
            del parents[path]
    if parents:
        first = next(iter(parents))
        yield ("space", first, "when"), f"space: the conditions of {', '.join(parents)} lead back to themselves"


# ---------------------------------------------------------------------- the space's values


def _values(config: "SweepConfig") -> Iterator[Problem]:
    of_axes = [problem for current in config.axes for problem in _axis(config, current)]
    yield from of_axes
    yield from _top_shares(config)
    touching = with_parents(
        config.axes, [axis for axis in config.axes if any(p.startswith(("base.", "eval.")) for p in axis.paths)]
    )
    if len(list(islice(corners(touching, {}), _BASELINES + 1))) > _BASELINES:
        yield (
            ("space",),
            f"space: more than {_BASELINES:,} combinations of base and eval settings, and each needs its own baseline",
        )
    if not of_axes and config.search.sampler == "grid" and all(current.points() is not None for current in config.axes):
        size = config.size()
        if size == 0:
            yield ("space",), "space: no point is a valid trial: its settings contradict each other everywhere"
        elif size is None:
            yield ("space",), "space: too many points for the grid sampler (10000 at most); take wider steps or another sampler"
    varied = sorted(_SEEDS & set(config.paths()))
    if config.search.replicates > 1 and varied:
        yield (
            ("search", "replicates"),
            f"search.replicates: they differ in their seeds, and the space varies {', '.join(varied)}",
        )
    for i, point in enumerate(config.search.first):
        for path, problem in _first(config, point):
            yield ("search", "first", i, *([path] if path else [])), f"search.first: {problem}"


def _place(current: Axis) -> Place:
    if isinstance(current, Pairs):
        return ("space", PAIRED)
    return ("space", MIX if isinstance(current, Mixture) else current.paths[0])


def _axis(config: "SweepConfig", current: Axis) -> Iterator[Problem]:
    place, path = _place(current), ", ".join(current.paths)
    if isinstance(current, Single) and path.startswith(("base.", "eval.")) and not isinstance(current.parameter, Categorical):
        yield place, f"space: {path} needs its own baseline for each value, so it takes `type: categorical` alone"
    if config.search.sampler == "grid" and current.points() is None:
        yield place, f"space: the grid sampler needs choices or a step for {_place(current)[1]}"
    parents = [axis for axis in with_parents(config.axes, [current]) if axis is not current]
    above = next((point for point in every_point(parents) if current.active(point)), None)
    if above is None:
        yield (*place, "when"), f"space: {path}: its conditions are never all met"
        return
    for i, part in enumerate(_probes(current)):
        if problem := _invalid(config, {**above, **part}):
            where = (*place, i) if isinstance(current, Pairs) else place
            told = ", ".join(f"{name} = {value!r}" for name, value in part.items())
            yield where, f"space: {told}: {problem}"
            break


def _probes(current: Axis) -> list[dict[str, Any]]:
    if isinstance(current, Single):
        return [{current.path: value} for value in current.parameter.probes()]
    return list(current.extremes())


def _invalid(config: "SweepConfig", settings: dict[str, Any]) -> str | None:
    if settings.get("base.dtype") == "auto":
        return "auto is one type on each machine; name those to be compared, such as bfloat16 and float16"
    for path, value in settings.items():
        takes = scalars(path)
        if isinstance(value, str) and takes and str not in takes:
            right = "true or false" if bool in takes else "a number"
            return f"{found(value)} is a text; {right} stands without quotes"
    try:
        config.spec(settings)
    except ValidationError as error:
        return next(text for _, text in explained(error, TrialSpec))
    except (ValueError, TypeError) as error:
        return str(error)
    return None


def _top_shares(config: "SweepConfig") -> Iterator[Problem]:
    tops = []
    for current in config.axes:
        shares = [[value for path, value in part.items() if path.startswith(f"{MIX}.")] for part in current.extremes()]
        if not isinstance(current, Mixture) and not current.when and any(shares):
            tops.append(max(sum(part) for part in shares))
    if len(tops) > 1 and sum(tops) > 1 + 1e-9:
        yield ("space",), f"space: the largest shares of {MIX} add up to {sum(tops):g}, more than 1"


def _first(config: "SweepConfig", point: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """What is wrong with a point to try first, with the path concerned ("" for the point as a whole)."""
    unknown = [path for path in point if path not in config.paths()]
    for path in unknown:
        near = difflib.get_close_matches(path, config.paths(), n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(config.paths())}"
        yield path, f"{path!r} is not in the space; {hint}"
    settings: dict[str, Any] = {}
    for current in config.axes:
        given = {path: point[path] for path in current.paths if path in point}
        if not given:
            continue
        if not current.active(settings):
            conditions = " and ".join(f"{path} is {' or '.join(map(repr, allowed))}" for path, allowed in current.when.items())
            yield next(iter(given)), f"{', '.join(given)} has a place only in a point in which {conditions}"
        elif problem := current.refusal(given):
            yield next(iter(given)), problem
        else:
            settings |= current.given(given)
    if set(point) <= set(settings) and (problem := _invalid(config, settings)):
        yield "", problem
