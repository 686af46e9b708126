"""What many noisy points say of each other: their true values, given all of them.

The best of many estimates owes part of its place to luck, so that it looks better than it is (the winner's curse). Empirical
Bayes takes that part off: the true points are taken to be drawn from one distribution, which is estimated from all points, and
each point's posterior leans towards the rest as far as its own error is large beside their spread. The distribution has one
peak: a mixture of normal ones about one centre, N(mu, s T) over a grid of scales s, as in adaptive shrinkage (Stephens 2017,
doi:10.1093/biostatistics/kxw041), here in m dimensions. A few settings that ruin everything then do not hide that the others
hardly differ.
"""

import numpy as np

FEWEST = 4  # points from which a distribution is estimated
_ENOUGH = 1000  # and those that suffice
_SCALES = np.concatenate([[0.0], 2.0 ** np.arange(-10, 5)])


def posterior(points: np.ndarray, errors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Means (t, m) and joint draws (draws, t, m) of the true points, from `points` (t, m) and draws of their `errors`.

    What all points share of their error (the mean over points in each draw: the base's answers above all) moves none against
    another and is left in. With fewer than FEWEST points nothing is known of a distribution, and nothing is shrunk.
    """
    t, m = points.shape
    shared = errors.mean(axis=1, keepdims=True)
    if t < FEWEST:
        return points, points - errors
    own = errors - shared
    noise = np.einsum("btm,btk->tmk", own, own) / len(errors)
    scale = points.std(axis=0)  # so that the tolerances below mean the same for every unit
    scale = np.where(scale > 0, scale, 1.0)
    noise = noise / np.outer(scale, scale)
    random = np.random.default_rng(0)
    some = np.arange(t) if t <= _ENOUGH else np.sort(random.choice(t, _ENOUGH, replace=False))
    centre, spread, weight = _fit((points / scale)[some], noise[some])
    share = _shares(points / scale - centre, noise, spread, weight)[0]
    gains = _gains(spread, noise)  # (k, t, m, m)
    away = points / scale - centre
    mean = np.einsum("kt,ktmn,tn->tm", share, gains, away) + centre
    # a draw picks a component for each point, then follows its posterior: (1 - K) z - K e about its mean
    picked = (random.random((len(errors), t))[None] > share.cumsum(axis=0)[:-1, None]).sum(axis=0)
    chosen = gains[picked, np.arange(t)]
    root = _root(spread)
    fresh = random.standard_normal((len(errors), t, m)) @ root.T * np.sqrt(_SCALES)[picked][..., None]
    noisy = away - own / scale - fresh
    drawn = centre + fresh + np.einsum("btmn,btn->btm", chosen, noisy)
    # the centre is itself estimated: it moves with what its points happened to be
    moved = np.einsum("btmn,bn->btm", np.eye(m) - chosen, _of_centre(random, spread, share, len(errors), root))
    return mean * scale, (drawn + moved) * scale - shared


def _fit(points: np.ndarray, noise: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Centre (m,), T (m, m) and the components' weights (k,), by expectation maximisation."""
    t, m = points.shape
    centre = np.median(points, axis=0)
    spread = _above_noise(np.cov(points.T).reshape(m, m), noise.mean(axis=0))
    weight = np.full(len(_SCALES), 1.0 / len(_SCALES))
    for _ in range(100):
        share, precise = _shares(points - centre, noise, spread, weight)
        # a little of every component stays: else a handful of points settles on one scale as if that were known
        updated = (share.sum(axis=1) + 1.0 / len(_SCALES)) / (t + 1.0)
        pull = np.einsum("kt,ktmn->mn", share, precise)
        moved = np.linalg.solve(pull, np.einsum("kt,ktmn,tn->m", share, precise, points))
        done = np.abs(updated - weight).max() < 1e-4 and np.abs(moved - centre).max() < 1e-4
        weight, centre = updated, moved
        if done:
            break
    return centre, spread, weight


def _shares(away: np.ndarray, noise: np.ndarray, spread: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The points' shares in the components (k, t), and each one's precision there (k, t, m, m)."""
    total = _SCALES[:, None, None, None] * spread + noise + 1e-12 * np.eye(len(spread))
    precise = np.linalg.inv(total)
    likelihood = -0.5 * (np.einsum("tm,ktmn,tn->kt", away, precise, away) + np.linalg.slogdet(total)[1])
    share = weight[:, None] * np.exp(likelihood - likelihood.max(axis=0))
    return share / share.sum(axis=0), precise


def _gains(spread: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """Shape (k, t, m, m): s T (s T + S)^-1, the part of a deviation that is believed."""
    signal = _SCALES[:, None, None, None] * spread
    gains: np.ndarray = signal @ np.linalg.inv(signal + noise + 1e-12 * np.eye(len(spread)))
    return gains


def _above_noise(covariance: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """What of the points' covariance their errors do not explain, at least a thousandth of it in every direction."""
    values, vectors = np.linalg.eigh(covariance - noise)
    least = 1e-3 * np.trace(covariance) / len(covariance)
    spread: np.ndarray = (vectors * np.maximum(values, least)) @ vectors.T
    return spread


def _of_centre(random: np.random.Generator, spread: np.ndarray, share: np.ndarray, draws: int, root: np.ndarray) -> np.ndarray:
    """Shape (draws, m): the estimated centre's error."""
    t = share.shape[1]
    scale = float(share.mean(axis=1) @ _SCALES)
    return random.standard_normal((draws, len(spread))) @ root.T * np.sqrt(scale / t)


def _root(spread: np.ndarray) -> np.ndarray:
    values, vectors = np.linalg.eigh(spread)
    root: np.ndarray = vectors * np.sqrt(np.maximum(values, 0.0))
    return root
