"""Names of what a sweep's results hold: states and columns. Imports nothing heavy, so that every command may use it."""

from typing import Literal, get_args

State = Literal["complete", "failed", "given up", "pending"]
"""State of a trial. Given up: the front beat it while it was evaluated. A key is never given up."""
STATES: tuple[State, ...] = get_args(State)

# The columns of `Sweep.trials` that a metric has beside its value, which stands under the metric's own name.


def se(metric: str) -> str:
    """Standard error."""
    return f"{metric}_se"


def sd(metric: str) -> str:
    """Sample standard deviation between replicates, NaN for a single one."""
    return f"{metric}_sd"


def low(metric: str) -> str:
    """Lower end of the 95 % interval."""
    return f"{metric}_low"


def high(metric: str) -> str:
    """Upper end of the 95 % interval."""
    return f"{metric}_high"


def ends(metric: str) -> list[str]:
    """Both ends of the 95 % interval."""
    return [low(metric), high(metric)]


def interval(metric: str) -> dict[str, str]:
    """The value and both ends, by the names that they have in JSON."""
    return {"value": metric, "low": low(metric), "high": high(metric)}


def searched(metric: str) -> str:
    """The value on the documents that the search saw. It decides on feasibility and front."""
    return f"{metric}_search"


def corrected(metric: str) -> str:
    """An objective's value without the luck of the best of many; it has `ends` of its own. See stats/shrinkage."""
    return f"{metric}_corrected"


def p_kept(constraint: object) -> str:
    """Probability that a constraint is kept."""
    return f"p:{constraint}"
