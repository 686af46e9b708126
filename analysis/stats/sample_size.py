"""The power of a decision by a 95 % interval, and how many documents reach it."""

from collections.abc import Sequence

import numpy as np
from scipy import special

from analysis.stats.intervals import reach

POWER = 0.8  # of the number of documents or seeds that is reported as sufficient
_MOST = 100_000_000  # documents; no benchmark has more


def power(distances: Sequence[float], stderr: float, freedom: float, of: int = 1) -> float:
    """Probability that the interval of a true value at these distances from its bounds excludes all of them (noncentral t).

    `of` intervals hold jointly at 95 %.
    """
    if stderr == 0:
        return 1.0
    missed = (float(special.nctdtr(freedom, distance / stderr, float(reach(freedom, of)))) for distance in distances)
    return max(1.0 - sum(missed), 0.0)  # a lower bound for two distances, by Bonferroni's inequality


def sufficient_documents(distance: float, stderr: float, seeds_stderr: float, documents: int, seeds: int) -> int | None:
    """The smallest number above `documents` that excludes the bound with probability POWER, if the estimate is true.

    `distance`: of the estimate from the bound. `stderr`: with the present `documents`; of it `seeds_stderr` comes from the
    `seeds`, which more documents do not shrink. None where no number suffices.
    """
    by_document = max(stderr**2 - seeds_stderr**2, 0.0) * documents

    def decides(n: int) -> bool:
        freedom = n - 1 if seeds == 1 else seeds - 1
        return power((distance,), float(np.sqrt(seeds_stderr**2 + by_document / n)), freedom) >= POWER

    if distance <= 0 or not decides(_MOST):
        return None
    low, high = documents, _MOST  # power grows with n
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if decides(middle) else (middle, high)
    return high
