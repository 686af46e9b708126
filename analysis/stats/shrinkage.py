"""Empirical Bayes: the posterior of many noisy points' true values, which corrects the best of them for the winner's curse.

The true points are assumed to come from one distribution, which is estimated from all points; each posterior shrinks towards
it as far as the point's error is large against the distribution's spread.
"""

import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

FEWEST = 4  # points from which a distribution is estimated
_ENOUGH = 300  # points in a fit; more do not improve it
_MOST = {1: FEWEST, 2: 12, 3: 30}  # number of components: the points that it requires
_REFITS = 8  # fits to reweighted points, for at most _FEW points
_FEW = 100
_SCALES = 2.0 ** np.arange(-8, 2.5, 0.5)  # of the components' covariances, with equal prior probabilities
_TAIL = (0.25, 9.0)  # share of the wider components, and the factor of their covariances
_TINY = 1e-9


@dataclass(frozen=True)
class _Mixture:
    """A normal mixture of k components: weights (k,), means (k, m), covariances (k, m, m).

    Several components, because a few settings may ruin everything and say nothing about the rest.
    """

    weight: np.ndarray
    mean: np.ndarray
    spread: np.ndarray

    def shares(self, points: np.ndarray, noise: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
        """The points' shares in the components (k, t), the precision of each there (k, t, m, m), and the log-likelihood."""
        total = self.spread[:, None] + noise + _TINY * np.eye(points.shape[1])
        precise = np.linalg.inv(total)
        away = points - self.mean[:, None]
        each = np.log(self.weight)[:, None] - 0.5 * (
            np.einsum("ktm,ktmn,ktn->kt", away, precise, away) + np.linalg.slogdet(2 * np.pi * total)[1]
        )
        most = each.max(axis=0)
        share = np.exp(each - most)
        return share / share.sum(axis=0), precise, float((most + np.log(share.sum(axis=0))).sum())


def posterior(points: np.ndarray, errors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Means (t, m) and joint draws (draws, t, m) of the true points, from `points` (t, m) and draws of their `errors`.

    Fewer than FEWEST points are not shrunk.
    """
    t = len(points)
    # The error that all points share, the base's above all, moves none against another: it is not shrunk.
    shared = errors.mean(axis=1, keepdims=True)
    if t < FEWEST:
        return points, points - errors
    scale = points.std(axis=0)
    scale = np.where(scale > 0, scale, 1.0)
    own = (errors - shared) / scale
    noise = np.einsum("btm,btk->tmk", own, own) / len(errors)
    random = np.random.default_rng(zlib.crc32(points.tobytes()))  # differs between sweeps
    some = np.arange(t) if t <= _ENOUGH else np.sort(random.choice(t, _ENOUGH, replace=False))
    points = points / scale
    mixture = _fit(points[some], noise[some])
    mean, drawn = np.zeros_like(points), np.empty_like(errors)
    for these in np.array_split(random.permutation(len(errors)), _REFITS if t <= _FEW else 2):
        # The distribution of few points is itself uncertain: average over fits to reweighted points, after the bootstrap of
        # Laird and Louis (1987, doi:10.1080/01621459.1987.10478490).
        again = _fitted(mixture, points[some], noise[some], random.standard_exponential(len(some)))
        for scaled, chance in _scaled(_tailed(again), points[some], noise[some], len(these), random):
            own_mean, drawn[these[chance]] = _posterior_under(scaled, points, noise, own[these[chance]], random)
            mean += own_mean * chance.sum() / len(errors)
    return mean * scale, drawn * scale - shared


def _tailed(mixture: _Mixture) -> _Mixture:
    """Each component with a wider one about the same mean: a normal tail would take every point that is truly far for luck."""
    weight = np.concatenate([mixture.weight * (1 - _TAIL[0]), mixture.weight * _TAIL[0]])
    return _Mixture(weight, np.tile(mixture.mean, (2, 1)), np.concatenate([mixture.spread, mixture.spread * _TAIL[1]]))


def _scaled(
    mixture: _Mixture, points: np.ndarray, noise: np.ndarray, draws: int, random: np.random.Generator
) -> Iterator[tuple[_Mixture, np.ndarray]]:
    """Narrower and wider distributions, each with a mask (draws,) of its draws, in proportion to its likelihood."""
    each = [_Mixture(mixture.weight, mixture.mean, mixture.spread * by) for by in _SCALES]
    likely = np.array([one.shares(points, noise)[2] for one in each])
    chance = np.exp(likely - likely.max())
    of_draw = random.choice(len(each), size=draws, p=chance / chance.sum())
    for place in np.unique(of_draw):
        yield each[place], of_draw == place


def _posterior_under(
    mixture: _Mixture, points: np.ndarray, noise: np.ndarray, own: np.ndarray, random: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Posterior means (t, m), and a draw for each of the errors `own` (draws, t, m), under one distribution."""
    draws, t, m = own.shape
    share, precise, _ = mixture.shares(points, noise)
    gains = mixture.spread[:, None] @ precise  # (k, t, m, m): share of a deviation that is kept, as a Kalman gain
    away = points - mixture.mean[:, None]
    mean = np.einsum("kt,ktm->tm", share, mixture.mean[:, None] + np.einsum("ktmn,ktn->ktm", gains, away))
    picked = (random.random((draws, t))[None] > share.cumsum(axis=0)[:-1, None]).sum(axis=0)
    roots = np.array([root(spread) for spread in mixture.spread])
    # Matheron's rule: a draw of the prior plus the gain times the difference between the point and that draw with an error.
    fresh = _times(roots[picked], random.standard_normal((draws, t, m)))
    centre, gain = mixture.mean[picked], gains[picked, np.arange(t)]
    drawn = centre + fresh + _times(gain, points - centre - fresh - own)
    # The components' means are estimates, each from `alike` points.
    alike = np.maximum(share.sum(axis=1), 1.0)
    moved = _times(roots / np.sqrt(alike)[:, None, None], random.standard_normal((draws, len(alike), m)))
    moved = moved[np.arange(draws)[:, None], picked]
    return mean, drawn + moved - _times(gain, moved)


def _fit(points: np.ndarray, noise: np.ndarray) -> _Mixture:
    """The mixture with the lowest BIC."""
    t, m = points.shape
    best, lowest = None, np.inf
    for count, fewest in _MOST.items():
        if t < fewest:
            break
        found = _fitted(_initial(points, count), points, noise, np.ones(t))
        size = count * (1 + m + m * (m + 1) / 2) - 1
        criterion = size * np.log(t) - 2 * found.shares(points, noise)[2]
        if criterion < lowest:
            best, lowest = found, criterion
    assert best is not None
    return best


def _initial(points: np.ndarray, count: int) -> _Mixture:
    """Initial components: shells about the median point with the same number of points."""
    away = np.abs(points - np.median(points, axis=0)) / (np.median(np.abs(points - np.median(points, axis=0)), axis=0) + 0.1)
    shell = np.array_split(np.argsort(away.max(axis=1)), count)
    least = 0.01 * np.eye(points.shape[1])
    spread = [np.cov(points[one].T).reshape(least.shape) + least for one in shell]
    return _Mixture(np.full(count, 1 / count), np.array([points[one].mean(axis=0) for one in shell]), np.array(spread))


def _fitted(mixture: _Mixture, points: np.ndarray, noise: np.ndarray, counts: np.ndarray) -> _Mixture:
    """Expectation maximisation until convergence, each point weighted by its count: extreme deconvolution of points with
    known errors (Bovy, Hogg and Roweis 2011, doi:10.1214/10-AOAS439)."""
    for _ in range(100):
        share, precise, _ = mixture.shares(points, noise)
        before, mixture = mixture, _Mixture(*_step(mixture, points, share * counts, precise))
        if np.abs(mixture.spread - before.spread).max() < 1e-3 and np.abs(mixture.mean - before.mean).max() < 1e-3:
            break
    return mixture


def _step(mixture: _Mixture, points: np.ndarray, share: np.ndarray, precise: np.ndarray) -> Iterator[np.ndarray]:
    gains = mixture.spread[:, None] @ precise
    believed = mixture.mean[:, None] + np.einsum("ktmn,ktn->ktm", gains, points - mixture.mean[:, None])
    left = mixture.spread[:, None] - gains @ mixture.spread[:, None]
    total = share.sum(axis=1) + _TINY
    yield total / total.sum()
    mean = np.einsum("kt,ktm->km", share, believed) / total[:, None]
    yield mean
    away = believed - mean[:, None]
    spread = np.einsum("kt,ktm,ktn->kmn", share, away, away) + np.einsum("kt,ktmn->kmn", share, left)
    # The ridge keeps a component of few points from collapsing onto one; one degree of freedom went to its mean.
    yield (spread + 0.01 * np.eye(points.shape[1])) / np.maximum(total - 1.0, 1.0)[:, None, None]


def _times(matrices: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    return (matrices @ vectors[..., None])[..., 0]


def root(covariance: np.ndarray) -> np.ndarray:
    """A matrix whose product with its transpose is `covariance`; negative eigenvalues are rounding errors and count as 0."""
    values, vectors = np.linalg.eigh(covariance)
    found: np.ndarray = vectors * np.sqrt(np.maximum(values, 0.0))
    return found
