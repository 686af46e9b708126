"""A plan as a table, with its notes and warnings as lines."""

from typing import Any

from rich.table import Table

from analysis.formatting.numbers import duration
from analysis.metrics.names import parse_constraint
from orchestrator.config import racing
from orchestrator.config.model import SweepConfig
from orchestrator.planning.benchmarks import Benchmark
from orchestrator.planning.cost import GIB
from orchestrator.planning.estimate import Memory
from orchestrator.planning.plan import Plan
from orchestrator.planning.simulate import ATTEMPTS, Simulation
from trials.ledger.outcomes import REPORT, SEARCH

_USES = ("rows", "used", "cut", "cut_tokens", "duplicates")
"""Counts of a source's rows that are no reason to leave one out."""


def table(plan: Plan, config: SweepConfig) -> Table:
    made = Table(title=plan.name, title_justify="left", show_header=False)
    for name, value in config.about.items():
        made.add_row(name, _about(value))
    made.add_row("trials", _trials(plan, config))
    if derived := len(config.derive.points()[1:]):
        of = ", ".join(f"{path} {value}" for path, value in config.derive.of.items())
        points = f"{derived} point{'s' * (derived != 1)}"
        where = f" at {of}" if of else ""
        made.add_row("derived", f"{points} of each training{where}, evaluated without further training")
    made.add_row("baselines", f"{plan.baselines}, {plan.baselines_done} of them done")
    made.add_row("sampler", config.search.sampler + (f", {plan.points} points" if plan.points is not None else ""))
    made.add_row("racing", _racing(config))
    for path, parameter in config.space.items():
        made.add_row(path, parameter.spelled())
    wanted = [f"{objective.direction} {objective.metric}" for objective in config.search.objectives]
    made.add_row("objectives", "\n".join(wanted))
    if config.search.constraints:
        made.add_row("constraints", "\n".join(str(parse_constraint(text)) for text in config.search.constraints))
    for role, benchmark in plan.eval.items():
        made.add_row(f"eval.{role}", _benchmark(benchmark))
    for source, counts in plan.rows.items():
        made.add_row(f"rows of {source}", _rows(plan, source, counts))
    made.add_row("a trial takes", _seconds(plan))
    if plan.hours is not None and plan.hours_left is not None:
        made.add_row("worker time", f"{duration(plan.hours * 3600)} in all, {duration(plan.hours_left * 3600)} left")
    made.add_row("GPU", plan.gpu or "none here; --gpu names a kind")
    if plan.gpu_hours is not None:
        made.add_row("GPU-hours", _amount(plan.gpu_hours, plan.gpu_hours_left))
    if plan.money is not None:
        made.add_row("money", f"{_amount(plan.money, plan.money_left)}, at {plan.price_per_gpu_hour:g} a GPU-hour")
    if plan.memory is not None:
        made.add_row("memory", _memory(plan.memory))
    if plan.disk_bytes is not None:
        free = "" if plan.disk_free is None else f", {_size(plan.disk_free)} free"
        left = f"{_size(plan.disk_bytes)} left to write" if plan.disk_bytes else "nothing left to write"
        made.add_row("disk", f"{left}{free}")
    if plan.simulated is not None:
        made.add_row(f"on {plan.simulated.workers:,} workers", _simulated(plan.simulated))
    return made


def lines(plan: Plan) -> list[str]:
    return [f"note: {text}" for text in plan.notes] + [f"warning: {text}" for text in plan.warnings]


def _about(value: Any) -> str:
    """A value of the section `about`, a line for each entry of a list."""
    if isinstance(value, list):
        return "\n".join(map(_about, value))
    if isinstance(value, dict):
        return ", ".join(f"{name}: {_about(inner)}" for name, inner in value.items())
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)


def _racing(config: SweepConfig) -> str:
    if config.search.racing:
        return "a trial is given up once the front or the base beats it; the hours below do without it"
    return "; ".join(["off", *racing.obstacles(config)[:1]])


def _trials(plan: Plan, config: SweepConfig) -> str:
    runs = f", each run {plan.replicates} times" if plan.replicates > 1 else ""
    if plan.trials is not None:
        return f"{plan.trials}{runs}, {plan.trials_done} of them done"
    about = f", about {plan.trials_in_time}" if plan.trials_in_time is not None else ""
    limits = {"GPU-hours": config.search.gpu_hours, "hours": config.search.hours}
    until = " or ".join(f"{hours:g} {name}" for name, hours in limits.items() if hours is not None)
    return f"as many as {until} allow{about}{runs}; {plan.trials_done} done"


def _seconds(plan: Plan) -> str:
    if plan.seconds_per_trial is None:
        return "unknown: neither measured nor countable"
    phases = [f"{name} {duration(phase.seconds)} ({phase.basis})" for name, phase in plan.phases.items()]
    return "\n".join([f"{duration(plan.seconds_per_trial)} on average", *phases])


def _benchmark(found: Benchmark) -> str:
    """ "my_task of /home/me/tasks, 40 documents (22 searched, 18 reported); exact_match, lower is better"."""
    metric = found.metric.removesuffix(",none")
    direction = ", lower is better" if found.better == "lower" else ""
    if found.documents is None:
        size = "documents are counted when it runs"
    else:
        part = f" of {found.of:,}" if found.of is not None and found.of != found.documents else ""
        size = f"{found.documents:,}{part} document{'s' * (found.documents != 1)}"
    if found.halves is not None:
        size += f" ({found.halves[SEARCH]:,} searched, {found.halves[REPORT]:,} reported)"
    return f"{' + '.join(found.task)} of {found.origin}, {size}; {metric}{direction}"


def _rows(plan: Plan, source: str, counts: dict[str, int]) -> str:
    parts = [f"{counts['used']:,} of {counts['rows']:,} used at most"]
    if counts["cut"]:
        parts.append(f"{counts['cut']:,} of them cut at data.max_length, {counts['cut_tokens']:,} tokens of the loss lost")
    parts += [f"{counts['duplicates']:,} of them duplicates"] if counts["duplicates"] else []
    reasons = {name: count for name, count in counts.items() if name not in _USES}
    if reasons:
        skipped = ", ".join(f"{count:,} {reason}" for reason, count in reasons.items())
        parts.append(f"skipped on the way to them: {skipped}")
    lines = ["; ".join(parts)]
    for reason, places in plan.unused.get(source, {}).items():
        more = ", ..." if reasons[reason] > len(places) else ""
        lines.append(f"{reason}: {', '.join(places)}{more}")
    for reason, (count, first) in plan.unusable.get(source, {}).items():
        if count > reasons.get(reason, 0):
            lines.append(f"in the whole source: {count:,} {reason} (first: {first})")
    for oddity, (count, first) in plan.unusual.get(source, {}).items():
        lines.append(f"{count:,} row{'s have' if count > 1 else ' has'} {oddity} (first: {first})")
    return "\n".join([*([plan.formats[source]] if source in plan.formats else []), *lines])


def _amount(whole: float, left: float | None) -> str:
    return f"{whole:.2f} in all" + ("" if left is None else f", {left:.2f} left")


def _memory(memory: Memory) -> str:
    parts = ", ".join(f"{name} {_size(size)}" for name, size in memory.parts.items())
    at = ", ".join(f"{path} {value}" for path, value in memory.settings.items())
    head = f"{_size(memory.total)} at a trial's peak" + (f" ({at})" if at else "")
    if memory.available is not None:
        head += f"; {'fits' if memory.fits else 'does not fit'} into {_size(memory.available)}"
    return f"{head}\n{parts}"


def _simulated(found: Simulation) -> str:
    """Time, shares of the workers, and last the limit, which is what one would change."""
    spent = ", ".join(f"{name} {share:.0%}" for name, share in found.spent.items())
    busy = ", ".join(f"{name} {share:.0%}" for name, share in found.busy.items())
    head = f"{found.trials:,} trials in {duration(found.hours * 3600)}"
    if found.failed:
        head += f"; {found.failed:,} fail, their workers having died {ATTEMPTS} times"
    limit = f"the limit: {found.limit}"
    if found.workers_at_most is not None:
        limit += f"; towards the end the driver keeps {found.workers_at_most:,} workers busy at most"
    return "\n".join([head, f"the workers' time: {spent}", f"at work: {busy}", limit])


def _size(count: float) -> str:
    return f"{count / GIB:.1f} GiB" if count >= GIB / 10 else f"{count / 2**20:.1f} MiB"
