"""Expected gain of hypervolume of points whose objectives are independent normal variables.

More is better in every objective here. A front divides the space above a reference point into boxes that it does not dominate;
the hypervolume that a point adds is the volume of their parts below it. Its expectation is a sum over boxes of products of
one-dimensional integrals (Daulton et al. 2020, arXiv:2006.05078; Yang et al. 2019, doi:10.1007/s10898-019-00798-7).
"""

import numpy as np
from scipy.special import ndtr


def boxes(front: np.ndarray, reference: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper corners (b, m) of the space above `reference` (m,) that no point of `front` (n, m) dominates."""
    front = front[(front > reference).all(axis=1)]
    if len(reference) == 1:
        best = max(reference[0], front.max(initial=-np.inf))
        return np.array([[best]]), np.array([[np.inf]])
    cuts = np.unique(front[:, -1])
    lower, upper = [], []
    for low, high in zip([reference[-1], *cuts], [*cuts, np.inf], strict=True):
        below, above = boxes(front[front[:, -1] > low][:, :-1], reference[:-1])
        lower.append(np.column_stack([below, np.full(len(below), low)]))
        upper.append(np.column_stack([above, np.full(len(above), high)]))
    return np.vstack(lower), np.vstack(upper)


def nondominated(points: np.ndarray) -> np.ndarray:
    """Those of the points (n, m) that no other one dominates, each once."""
    points = np.unique(points, axis=0)
    better = (points[None] >= points[:, None]).all(axis=2)
    kept: np.ndarray = points[better.sum(axis=1) == 1]
    return kept


def gain(points: np.ndarray, corners: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """The volume (c,) that each of the points (c, m) adds by itself, given the `boxes` of the front."""
    lower, upper = corners
    sides = np.maximum(np.minimum(upper, points[:, None]) - lower, 0.0)
    found: np.ndarray = sides.prod(axis=2).sum(axis=1)
    return found


def expected_gain(mean: np.ndarray, sd: np.ndarray, corners: tuple[np.ndarray, np.ndarray], least: np.ndarray) -> np.ndarray:
    """Expected gain (c,) of points with these means and standard deviations (c, m), given the `boxes` of the front.

    A point below `least` (m,) in any objective is infeasible and gains nothing; -inf where there is no such bound.
    """
    lower, upper = corners
    product = np.ones((len(mean), len(lower)))
    for m in range(mean.shape[1]):
        cuts, places = np.unique(np.concatenate([lower[:, m], upper[:, m]]), return_inverse=True)
        beyond = _beyond(mean[:, m, None], sd[:, m, None], cuts, least[m])
        product *= beyond[:, places[: len(lower)]] - beyond[:, places[len(lower) :]]
    gain: np.ndarray = product.sum(axis=1)
    return gain


def _beyond(mean: np.ndarray, sd: np.ndarray, cuts: np.ndarray, least: float) -> np.ndarray:
    """The integral of P(value >= u and value >= least) over u from each cut (t,) to infinity, for normal values (c, 1)."""
    finite = np.isfinite(cuts)
    found = np.zeros((len(mean), len(cuts)))
    start = np.maximum(cuts[finite], least)
    z = (mean - start) / sd
    # far below the cut the two terms cancel to less than their rounding
    found[:, finite] = np.maximum(sd * (np.exp(-0.5 * z**2) / np.sqrt(2 * np.pi) + z * ndtr(z)), 0.0)
    flat = start - cuts[finite]
    if flat.any():  # below the bound the probability is that of reaching the bound
        found[:, finite] += flat * ndtr(z)
    return found
