"""A sweep's progress, failures and front on a terminal."""

from typing import Any

from orchestrator.console.front_table import front_table
from orchestrator.console.terminal import Terminal
from trials.printable import one_line


def summary(sweep: Any) -> dict[str, Any]:
    """`sweep`, from analysis.results: budget, number of trials by state, failures and the rows of the front."""
    from analysis.export.files import front_rows

    states = {state.replace(" ", "_"): count for state, count in sweep.states.items()}
    failures = sweep.failures.drop(columns="traceback", errors="ignore").to_dict("records")
    return {"budget": sweep.budget, **states, "failures": failures, "front": front_rows(sweep)}


def show(sweep: Any, terminal: Terminal) -> None:
    found = summary(sweep)
    # derived points do not count against the budget, so there may be more trials than it allows
    of = f" of {max(found['budget'], len(sweep.trials))}" if found["budget"] is not None else ""
    given_up = f"{found['given_up']} given up by racing, " if found["given_up"] else ""
    ended = f"{found['complete']}{of} trials complete, {found['failed']} failed"
    terminal.print(f"{sweep.name}: {ended}, {given_up}{found['pending']} open")
    for failure in found["failures"]:
        key = f" ({failure['key']})" if failure["key"] else ""
        text = one_line(f"{failure['what']}{key}: {failure['kind']}: {failure['message']}")
        terminal.print(f"  {text}", soft_wrap=True)
    terminal.print(front_table(sweep))
