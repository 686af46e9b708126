"""A sweep's progress, failures and front on a terminal."""

from typing import Any

from rich.table import Table

from analysis.formatting.numbers import duration
from analysis.results.manifest import Manifest
from orchestrator.console.front_table import front_table
from orchestrator.console.progress import name, settings
from orchestrator.console.terminal import Terminal
from orchestrator.console.time_left import Running, Timings
from orchestrator.sweep.running import RunningTrial, running
from trials.printable import one_line
from trials.progress_line import describe

_SILENT = 150.0  # seconds without a sign of life that are worth a word; a store gets one every 30


def summary(sweep: Any) -> dict[str, Any]:
    """`sweep`, from analysis.results: budget, number of trials by state and of paused ones, which are pending, running trials,
    failures and the rows of the front."""
    from analysis.export.files import front_rows

    states = {state.replace(" ", "_"): count for state, count in sweep.states.items()}
    failures = sweep.failures.drop(columns="traceback", errors="ignore").to_dict("records")
    now = [one.as_dict() for one in running(sweep)]
    paused = sum(one.paused for one in Manifest.read(sweep.folder).trials)
    return {
        "budget": sweep.budget,
        **states,
        "paused": paused,
        "running": now,
        "failures": failures,
        "front": front_rows(sweep),
    }


def show(sweep: Any, terminal: Terminal) -> None:
    found = summary(sweep)
    # derived points do not count against the budget, so there may be more trials than it allows
    of = f" of {max(found['budget'], len(sweep.trials))}" if found["budget"] is not None else ""
    given_up = f"{found['given_up']} given up, " if found["given_up"] else ""
    ended = f"{found['complete']}{of} trials complete, {found['failed']} failed"
    now = running(sweep)
    # a trial that runs is no longer waiting, and may run with several seeds; a baseline is none
    pending = found["pending"] - len({one.number for one in now if one.number is not None}) - found["paused"]
    paused = f"{found['paused']} paused, " if found["paused"] else ""
    terminal.print(f"{sweep.name}: {ended}, {given_up}{paused}{max(pending, 0)} waiting, {len(now)} running")
    if now:
        terminal.print(_table(now, _timings(sweep, now)))
    for failure in found["failures"]:
        key = f" ({failure['key']})" if failure["key"] else ""
        text = one_line(f"{failure['what']}{key}: {failure['kind']}: {failure['message']}")
        terminal.print(f"  {text}", soft_wrap=True)
    terminal.print(front_table(sweep))


def _table(trials: list[RunningTrial], timings: Timings) -> Table:
    """A row for each running trial."""
    made = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, show_header=False)
    for one in trials:
        said = describe(one.progress, duration) if one.progress else "has just begun"
        if one.silent is not None and one.silent > _SILENT:
            said += f" (no sign of life for {duration(one.silent)})"
        left = timings.left(Running(one.number is None, 0.0, one.progress)) if one.progress else None
        about = f"trial ends in about {duration(max(round(left), 1))}" if left is not None else ""
        who = name(one.number, one.replicate, one.replicates)
        made.add_row(f"  {who}", one.key[:8], said, about, settings(one.settings or {}))
    return made


def _timings(sweep: Any, now: list[RunningTrial]) -> Timings:
    """Of the sweep's finished trials, and of the trainings that run."""
    found = Timings()
    for one in now:
        if one.progress is not None:
            found.watch(one.progress)
    for record in sweep.complete_records:
        found.add(record.seconds, record.spec.is_baseline)
    return found
