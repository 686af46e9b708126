"""The roles of imported results: which tasks, scored by which metric.

Without `--role` each group and each single task of the base is a role of its own name. A known task takes metric, filters and
marker from its preset (trials/benchmark_presets.py), any other the first metric that lm-eval lists.
"""

import re
from collections.abc import Sequence
from typing import Any

from trials.benchmark_presets import benchmarks
from trials.errors import InputError
from trials.imported.folder import Model
from trials.printable import one_line
from trials.spec import Evaluation, plain_roles

FORM = "--role NAME=TASK[+TASK...][:METRIC[,FILTER]], as math=gsm8k:exact_match,strict-match"
_ROLE = re.compile(r"(?P<role>[^=]+)=(?P<tasks>[^:]+)(?::(?P<metric>[^,]+)(?:,(?P<filter>.+))?)?")
_PRESET = ("metric", "filter", "flexible", "marker")  # of a preset; the rest is as it ran


def evaluations(base: Model, given: Sequence[str]) -> dict[str, Evaluation]:
    """The evaluation of each role: those `given` as in FORM, or one for each group and task of the base."""
    if given:
        made = dict(_parsed(base, text) for text in given)
    else:
        made = {_plain(name): _evaluation(base, base.leaves(name), None) for name in base.tops()}
    if len(made) < (len(given) or len(base.tops())):
        raise InputError(f"two roles have the same name; {FORM}")
    try:
        return plain_roles(made)
    except ValueError as error:
        raise InputError(f"{error}; {FORM}") from None


def _parsed(base: Model, text: str) -> tuple[str, Evaluation]:
    match = _ROLE.fullmatch(text.strip())
    if match is None:
        raise InputError(f"a role reads {FORM}, but got {one_line(text)!r}")
    tasks: list[str] = []
    for name in match["tasks"].split("+"):
        leaves = base.leaves(name.strip())
        if not leaves:
            known = ", ".join([*base.members, *base.runs])
            raise InputError(f"--role {one_line(text)}: {base.name} has no task {name.strip()!r}; it has {known}")
        tasks += [leaf for leaf in leaves if leaf not in tasks]
    wanted = match["metric"] and (match["metric"].strip(), (match["filter"] or "").strip())
    return match["role"].strip(), _evaluation(base, tasks, wanted or None)


def _plain(name: str) -> str:
    """A task's name as a role's: mmlu-pro is mmlu_pro."""
    plain = re.sub(r"\W", "_", name)
    return plain if plain.isidentifier() else f"_{plain}"


def _evaluation(base: Model, tasks: Sequence[str], wanted: tuple[str, str] | None) -> Evaluation:
    runs = [base.runs[task] for task in tasks]
    measured = [run.metrics(task) for run, task in zip(runs, tasks, strict=True)]
    common = [name for name in measured[0] if all(name in other for other in measured)]
    scoring = _preset(tasks, common) if wanted is None else _wanted(wanted, tasks, common)
    configs = [run.config(task) for run, task in zip(runs, tasks, strict=True)]
    shots = {int(config.get("num_fewshot") or 0) for config in configs}
    counts = [run.documents(task) for run, task in zip(runs, tasks, strict=True)]
    part = any(count is not None and count[0] < count[1] for count in counts)
    return Evaluation(
        task=tasks[0] if len(tasks) == 1 else tuple(tasks),
        shots=shots.pop() if len(shots) == 1 else None,
        fewshot="stock",
        documents=sum(count[0] for count in counts if count is not None) if part else None,
        engine="hflm",
        **scoring,
    )


def _preset(tasks: Sequence[str], common: Sequence[str]) -> dict[str, Any]:
    """Metric, filters and marker of the preset with these tasks; else the first metric that all tasks have."""
    for preset in benchmarks().values():
        named = preset["task"] if isinstance(preset["task"], list) else [preset["task"]]
        found = {name: preset[name] for name in _PRESET if name in preset}
        needed = [f"{found['metric']},{found.get(name) or 'none'}" for name in ("filter", "flexible") if name in found]
        if set(named) == set(tasks) and set(needed or [f"{found['metric']},none"]) <= set(common):
            return found
    if not common:
        raise InputError(f"the tasks {', '.join(tasks)} have no metric in common; name roles of fewer tasks: {FORM}")
    metric, _, filter_name = common[0].partition(",")
    return {"metric": metric, "filter": filter_name}


def _wanted(wanted: tuple[str, str], tasks: Sequence[str], common: Sequence[str]) -> dict[str, Any]:
    metric, filter_name = wanted
    if not filter_name:  # the preset's filter if it has one, else the only or first one
        known = _preset(tasks, common)
        own = [one.partition(",")[2] for one in common if one.partition(",")[0] == metric]
        filter_name = known.get("filter", "none") if known["metric"] == metric else next(iter(own), "none")
    if f"{metric},{filter_name}" not in common:
        measured = "; ".join(common) or "nothing"
        missing = one_line(f"{metric},{filter_name}")
        raise InputError(f"--role: {'+'.join(tasks)} measures {measured}; not {missing} (metric,filter)")
    known = _preset(tasks, common)
    same = known["metric"] == metric and known.get("filter", "none") == filter_name
    return known if same else {"metric": metric, "filter": filter_name}
