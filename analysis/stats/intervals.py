"""Standard errors, intervals and tests of paired outcomes, with seeds as a second level."""

import numpy as np
from scipy import special

LEVEL = 0.95  # of every interval
FEWEST = 50  # clusters of documents for an interval of a metric that has no bounds, such as bits per byte
_SYMMETRIC = 1e-6  # skewness of a mean, below which it counts as none
TAILS = (50 * (1 - LEVEL), 50 * (1 + LEVEL))  # percentiles of draws


def reach(freedom: np.ndarray | float, of: int = 1) -> np.ndarray:
    """Half-width of a 95 % interval in standard errors, by degrees of freedom; `of` intervals hold jointly (Bonferroni)."""
    several, places = np.unique(
        freedom, return_inverse=True
    )  # thousands of settings have few distinct values, and each is slow
    found: np.ndarray = special.stdtrit(several, 1 - (1 - LEVEL) / (2 * of))[places.reshape(np.shape(freedom))]
    return found


def spread(influence: np.ndarray, values: np.ndarray, of: int = 1, bounded: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """Variance of the mean over replicates, and half the width of its interval in standard errors (see `reach`), each (t,).

    `influence` (t, r, c) has mean 0 along c; `values` (t, r) are the replicates' own. All replicates answer the same
    documents, so seeds and documents are crossed: outcome = mean + seed + document + rest, and the variance of the mean is
    var(seed) / r + var(document) / c + var(rest) / (r c). From the mean squares of that two-way layout it is

        (MS_seed + MS_document - MS_rest) / (r c),    but at least MS_seed / (r c) and MS_document / (r c).

    Seeds and documents each add the square of their own half-width (Howe 1974, doi:10.1080/01621459.1974.10482981): few seeds
    know little of the spread of seeds, however many documents there are. Half of MS_rest counts as the documents' alone.

    The documents of a metric that has no bounds may have long tails: see `_freedom`.
    """
    t, r, c = influence.shape
    moved = influence.mean(axis=1)
    by_document = r * np.square(moved).sum(axis=1) / (c - 1)
    of_documents = reach(np.full(t, c - 1.0) if bounded else _freedom(moved), of)
    if r == 1:
        return by_document / c, of_documents
    by_seed = c * values.var(axis=1, ddof=1)
    rest = np.square(influence - influence.mean(axis=1, keepdims=True)).sum(axis=(1, 2)) / ((r - 1) * (c - 1))
    together = np.maximum(by_seed + by_document - rest, np.maximum(by_seed, by_document))
    half = np.square(reach(r - 1, of)) * np.maximum(by_seed - rest / 2, 0) + np.square(of_documents) * by_document
    with np.errstate(divide="ignore", invalid="ignore"):
        return together / (r * c), np.where(together > 0, np.sqrt(half / together), of_documents)


def _freedom(moved: np.ndarray) -> np.ndarray:
    """Degrees of freedom (t,) of the variance of `moved` (t, c), by the variance that the kurtosis gives it (Satterthwaite
    1946, doi:10.2307/3002019; O'Neill 2014, doi:10.1080/00031305.2014.966589); at least 3, at most c - 1."""
    c = moved.shape[1]
    square = np.square(moved)
    with np.errstate(divide="ignore", invalid="ignore"):
        excess = np.nan_to_num(np.square(square).mean(axis=1) / np.square(square.mean(axis=1)) - 3)
    return np.maximum(2 / (2 / (c - 1) + np.maximum(excess, 0) / c), min(3.0, c - 1))


def skewness(influence: np.ndarray, variance: np.ndarray) -> np.ndarray:
    """Skewness (t,) of the means whose `influence` is (t, r, c) and whose variance is (t,). Seeds are taken to be symmetric."""
    moved = influence.mean(axis=1)
    c = moved.shape[1]
    if c < 3:
        return np.zeros(len(moved))
    third = (moved * moved * moved).sum(axis=1) / (c * (c - 1) * (c - 2))  # np.power takes ten times as long
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.nan_to_num(third / np.power(variance, 1.5))


def symmetric(t: np.ndarray | float, skew: np.ndarray) -> np.ndarray:
    """A studentised mean `t` whose mean has this skewness, so transformed that it is nearly symmetric (Hall 1992,
    doi:10.1111/j.2517-6161.1992.tb01872.x). It grows with `t`."""
    k = np.where(np.abs(skew) < _SYMMETRIC, _SYMMETRIC, skew)
    found: np.ndarray = ((1 + k * t / 3) ** 3 - 1) / k + k / 6
    return found


def skewed(steps: np.ndarray | float, skew: np.ndarray) -> np.ndarray:
    """The inverse of `symmetric`."""
    k = np.where(np.abs(skew) < _SYMMETRIC, _SYMMETRIC, skew)
    found: np.ndarray = 3 / k * (np.cbrt(1 + k * (steps - k / 6)) - 1)
    return found


def skewed_interval(
    value: np.ndarray, variance: np.ndarray, steps: np.ndarray, skew: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(low, high), each (t,), of the mean of a metric that has no bounds, such as bits per byte.

    It reaches farther where the documents have a long tail, but nowhere less than without one: the skewness is an estimate too.
    """
    error = np.sqrt(variance)
    low, high = np.maximum(skewed(steps, skew), steps), np.minimum(skewed(-steps, skew), -steps)
    return value - error * low, value - error * high


def interval(
    value: np.ndarray, variance: np.ndarray, steps: np.ndarray, unit: np.ndarray, n: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(low, high), each (t,), of a difference of shares: value -+ `steps` (t,) standard errors (see `reach`).

    `n` (t,) are clusters of documents, and `unit` is n times the effect of one flip.
    """
    # Two flips, one each way, are added (Bonett and Price 2012, doi:10.3102/1076998611411915): without them no flip would be
    # taken for certainty. Squares are about the new mean.
    centre = value * n / (n + 2)
    own = variance * (n / (n + 2)) ** 2 + (2 * np.square(unit) + 2 * np.square(value) * n / (n + 2)) / (n + 2) ** 2
    half = steps * np.sqrt(own)
    return centre - half, centre + half


def share_interval(value: np.ndarray, variance: np.ndarray, steps: np.ndarray, n: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(low, high), each (t,), of a share over n (t,) documents (Agresti and Coull 1998, doi:10.1080/00031305.1998.10480550)."""
    centre = (value * n + 2) / (n + 4)
    own = variance * (n / (n + 4)) ** 2 + (4 * np.square(0.5 - value) * n / (n + 4) + 1) / (n + 4) ** 2
    half = steps * np.sqrt(own)
    return np.maximum(centre - half, 0.0), np.minimum(centre + half, 1.0)


def sign_test(changes: np.ndarray) -> float:
    """Exact two-sided p-value for as many losses as wins, from the change (c,) of each cluster: how many documents it won more
    than it lost. For clusters of one document it is McNemar's test (1947, doi:10.1007/BF02295996). 1 without a change."""
    lost, won = int(np.sum(changes < 0)), int(np.sum(changes > 0))
    return min(1.0, 2 * float(special.bdtr(min(lost, won), lost + won, 0.5)))
