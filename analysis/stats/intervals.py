"""Standard errors, intervals and tests of paired outcomes, with seeds as a second level."""

import numpy as np
from scipy import special

LEVEL = 0.95  # of every interval


def reach(freedom: np.ndarray | float, of: int = 1) -> np.ndarray:
    """Half-width of a 95 % interval in standard errors, by degrees of freedom; `of` intervals hold jointly (Bonferroni)."""
    several, places = np.unique(
        freedom, return_inverse=True
    )  # thousands of settings have few distinct values, and each is slow
    found: np.ndarray = special.stdtrit(several, 1 - (1 - LEVEL) / (2 * of))[places.reshape(np.shape(freedom))]
    return found


def spread(influence: np.ndarray, values: np.ndarray, of: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Variance of the mean over replicates, and `reach` of its interval, both of shape (t,).

    `influence` (t, r, c) has mean 0 along c; `values` (t, r) are the replicates' own. All replicates answer the same
    documents, so seeds and documents are crossed: outcome = mean + seed + document + rest, and the variance of the mean is
    var(seed) / r + var(document) / c + var(rest) / (r c). From the mean squares of that two-way layout it is

        (MS_seed + MS_document - MS_rest) / (r c),    but at least MS_seed / (r c) and MS_document / (r c),

    with Satterthwaite's degrees of freedom (1946, doi:10.2307/3002019). With one replicate it is the variance over clusters.
    """
    t, r, c = influence.shape
    by_document = r * np.square(influence.mean(axis=1)).sum(axis=1) / (c - 1)
    if r == 1:
        return by_document / c, np.full(t, reach(c - 1, of))
    by_seed = c * values.var(axis=1, ddof=1)
    rest = np.square(influence - influence.mean(axis=1, keepdims=True)).sum(axis=(1, 2)) / ((r - 1) * (c - 1))
    together = by_seed + by_document - rest
    parts = by_seed**2 / (r - 1) + by_document**2 / (c - 1) + rest**2 / ((r - 1) * (c - 1))
    with np.errstate(divide="ignore", invalid="ignore"):
        freedom = np.where(parts > 0, np.square(together) / parts, c - 1)
        lucky = np.fmax(reach(c - 1, of), reach(1.3 * (r - 1), of) * np.sqrt(by_seed / by_document))
    # Seeds that agree better than single documents would allow agree by luck: the interval is then the wider one of what
    # documents and what so few seeds support (1.3 is calibrated in tests/system/calibrate.py).
    freedom = np.where(by_seed > together, r - 1, np.clip(freedom, r - 1, c - 1))
    steps = np.where(by_document > together, lucky, reach(freedom, of))
    return np.maximum(together, np.maximum(by_seed, by_document)) / (r * c), steps


def interval(
    value: np.ndarray, variance: np.ndarray, steps: np.ndarray, unit: np.ndarray | None, n: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(low, high), each (t,): value -+ `steps` (t,) standard errors (see `reach`).

    For a difference of shares over `n` (t,) documents, `unit` is n times the effect of one flip.
    """
    centre, own = value, variance
    if unit is not None:
        # Two flips, one each way, are added (Bonett and Price 2012, doi:10.3102/1076998611411915): without them no flip would
        # be taken for certainty. Squares are about the new mean.
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


def mcnemar(tuned: np.ndarray, base: np.ndarray) -> tuple[int, int, float]:
    """(lost, won, p): documents that only the base got right, documents that only tuned got right, and the exact two-sided
    p-value (McNemar 1947, doi:10.1007/BF02295996). Outcomes are 0 or 1, shape (n,)."""
    lost, won = int(np.sum((base == 1) & (tuned == 0))), int(np.sum((tuned == 1) & (base == 0)))
    return lost, won, min(1.0, 2 * float(special.bdtr(min(lost, won), lost + won, 0.5))) if lost + won else 1.0
