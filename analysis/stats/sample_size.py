"""How many documents decide whether a value keeps a bound."""

import numpy as np
from scipy import special

from analysis.stats.intervals import reach

POWER = 0.8
_MOST = 100_000_000  # documents; no benchmark has more


def power(distance: float, stderr: float, freedom: float) -> float:
    """Probability that the 95 % interval of a true value at this distance from a bound excludes it (noncentral t)."""
    if stderr == 0:
        return 1.0
    return 1.0 - float(special.nctdtr(freedom, distance / stderr, float(reach(freedom))))


def sufficient_documents(distance: float, stderr: float, seeds_stderr: float, documents: int, seeds: int) -> int | None:
    """The smallest number above `documents` that excludes the bound with probability POWER, if the estimate is true.

    `distance`: of the estimate from the bound. `stderr`: with the present `documents`; of it `seeds_stderr` comes from the
    `seeds`, which more documents do not shrink. None where no number suffices.
    """
    by_document = max(stderr**2 - seeds_stderr**2, 0.0) * documents

    def decides(n: int) -> bool:
        freedom = n - 1 if seeds == 1 else seeds - 1
        return power(distance, float(np.sqrt(seeds_stderr**2 + by_document / n)), freedom) >= POWER

    if distance <= 0 or not decides(_MOST):
        return None
    low, high = documents, _MOST  # power grows with n
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if decides(middle) else (middle, high)
    return high
