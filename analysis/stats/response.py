"""Response of a metric to a share of the training rows: a curve with its error, and the share from which a bound is kept.

The curve is the mixing law of one share, c + k exp(-a r) (arXiv 2403.16952, 2508.11953), a straight line where a is 0, plus a
term linear in each other setting. It rises or falls over all shares, so that a bound is crossed at most once.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import stats

NEEDED = 12  # trainings, or PER_PARAMETER for each parameter where that is more
PER_PARAMETER = 3
LEVELS = 4  # different shares, or nothing tells a curve from a line
_POINTS = 201  # of the curve, over the shares that were tried
_BENDS = np.geomspace(0.5, 32.0, 13)
_CURVATURES = np.concatenate([-_BENDS[::-1], [0.0], _BENDS])
"""Of the curve, over a range of shares scaled to 0..1."""
_TINY = 1e-12

Verdict = Literal["from", "up to", "everywhere", "nowhere", "cannot tell"]


@dataclass(frozen=True)
class Response:
    """A metric over the shares (p,) that were tried, at the average of the other settings, with 95 % intervals."""

    shares: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray
    change: tuple[float, float, float]
    """The metric at the largest share minus that at the least: value, low, high."""

    @property
    def differs(self) -> bool:
        """Whether the trials show that the share moves the metric."""
        return not self.change[1] <= 0 <= self.change[2]


@dataclass(frozen=True)
class Needed:
    """The shares that keep a bound. With "from" it is kept from `share` on, with "up to" up to `share`.

    The bound is certainly broken before `low` and kept after `high` ("up to": the other way round), with 95 % confidence. An
    end that the trials do not hold is None; `share` is None unless both are known.
    """

    verdict: Verdict
    share: float | None = None
    low: float | None = None
    high: float | None = None


def trainings_needed(columns: int) -> int:
    """Trainings that `respond` requires beside `columns` of other settings."""
    return max(NEEDED, PER_PARAMETER * (columns + 3))  # the law has an offset, a factor and a curvature


def respond(shares: np.ndarray, others: np.ndarray, values: np.ndarray, errors: np.ndarray) -> Response | None:
    """Fits the curve to t trainings: shares (t,), other settings (t, m), the metric's values (t,).

    `errors` (draws, t) are joint draws of the errors that the documents leave, as bootstrap.Errors.draws has them: an error
    that trainings share does not show in their scatter. None where the share moved with the other settings.
    """
    least, span = shares.min(), np.ptp(shares)
    scaled, points = (shares - least) / span, np.linspace(0.0, 1.0, _POINTS)
    beside = np.column_stack([np.ones(len(shares)), others - others.mean(axis=0)])
    if np.linalg.matrix_rank(np.column_stack([beside, scaled])) == np.linalg.matrix_rank(beside):
        return None
    fits = [_fit(beside, scaled, points, values, errors, bend) for bend in _CURVATURES]
    freedom = len(shares) - np.linalg.matrix_rank(beside) - 2
    residual = np.array([fit[2] for fit in fits])
    # A curvature is possible as far as its fit is no worse than the best by more than the scatter explains (profile
    # likelihood, Bates and Watts 1988): the interval is that of every possible curvature.
    best = int(residual.argmin())
    worse = (residual - residual.min()) / _scatter_of_curvature(beside, scaled, values, errors, best)
    room = np.maximum(stats.t.ppf(0.975, freedom) ** 2 - worse, 0.0)
    possible = [(mean, np.sqrt(variance * left)) for (mean, variance, _), left in zip(fits, room, strict=True) if left > 0]
    low = np.min([mean - half for mean, half in possible], axis=0)
    high = np.max([mean + half for mean, half in possible], axis=0)
    mean = fits[best][0]
    change = (float(mean[-1]), float(low[-1]), float(high[-1]))
    return Response(least + span * points, mean[:-1], low[:-1], high[:-1], change)


def _fit(
    beside: np.ndarray, scaled: np.ndarray, points: np.ndarray, values: np.ndarray, errors: np.ndarray, bend: float
) -> tuple[np.ndarray, np.ndarray, float]:
    """Least squares at one curvature: the curve at the points, then its change from end to end; their variances; the sum of
    the squared residuals."""
    design = np.column_stack([beside, _curve(scaled, bend)])
    wanted = np.zeros((len(points) + 1, design.shape[1]))
    wanted[:-1, 0], wanted[:-1, -1], wanted[-1, -1] = 1.0, _curve(points, bend), 1.0
    inverse = np.linalg.pinv(design)
    slopes = wanted @ inverse  # by how much each value moves the curve
    left = values - design @ (inverse @ values)
    leverage = np.einsum("tp,pt->t", design, inverse)
    freedom = max(len(values) - np.linalg.matrix_rank(design), 1)
    square = np.sum(left**2)
    # HC3 (MacKinnon and White 1985), for a training that forgets much also scatters much; at least the pooled scatter
    own = np.square(left / np.maximum(1.0 - leverage, 0.05))
    scatter = np.maximum(slopes**2 @ own, np.sum(slopes**2, axis=1) * square / freedom)
    # The scatter holds what the documents leave of a training's own error. What trainings share of it is added.
    unseen = errors - (errors @ design) @ inverse
    shared = np.mean((errors @ slopes.T) ** 2, axis=0)
    shared -= np.sum(slopes**2, axis=1) * np.mean(np.sum(unseen**2, axis=1)) / freedom
    return slopes @ values, scatter + np.maximum(shared, 0.0), float(square)


def _scatter_of_curvature(beside: np.ndarray, scaled: np.ndarray, values: np.ndarray, errors: np.ndarray, best: int) -> float:
    """The variance by which a worse fit is measured: that of the values along the direction in which the curvature moves the
    best fit (Kent 1982, doi:10.1093/biomet/69.1.19), but not below the pooled one."""
    design = np.column_stack([beside, _curve(scaled, _CURVATURES[best])])
    inverse = np.linalg.pinv(design)
    ends = (_CURVATURES[max(best - 1, 0)], _CURVATURES[min(best + 1, len(_CURVATURES) - 1)])
    moved = _curve(scaled, ends[1]) - _curve(scaled, ends[0])
    moved = moved - design @ (inverse @ moved)
    left = values - design @ (inverse @ values)
    freedom = len(values) - np.linalg.matrix_rank(design) - 1
    pooled = max(np.sum(left**2) / freedom, _TINY)
    if (length := np.sum(moved**2)) < _TINY:
        return float(pooled)
    leverage = np.einsum("tp,pt->t", design, inverse)
    own = np.square(moved * left / np.maximum(1.0 - leverage, 0.05)).sum() / length
    unseen = errors - (errors @ design) @ inverse
    shared = np.mean((errors @ moved) ** 2) / length - np.mean(np.sum(unseen**2, axis=1)) / freedom
    return float(max(own, pooled) + max(shared, 0.0))


def _curve(scaled: np.ndarray, bend: float) -> np.ndarray:
    """From 0 at 0 to 1 at 1; steep at first where `bend` is above 0."""
    return scaled if bend == 0 else np.expm1(-bend * scaled) / np.expm1(-bend)


def needed(response: Response, op: Literal["<=", ">="], bound: float) -> Needed:
    """The shares at which the average training keeps the metric within a bound."""
    if op == ">=":
        turned = Response(response.shares, -response.mean, -response.high, -response.low, response.change)
        return needed(turned, "<=", -bound)
    kept, broken = response.high <= bound, response.low > bound
    if kept.all() or broken.all():
        return Needed("everywhere" if kept.all() else "nowhere")
    for verdict in ("from", "up to"):
        way = slice(None) if verdict == "from" else slice(None, None, -1)
        ends = _ends(kept[way], broken[way])
        if ends is None:
            continue
        shares = response.shares[way]
        before, after = (None if end is None else float(shares[end]) for end in ends)
        crossing = None
        if before is not None and after is not None:
            crossing = float(shares[np.argmax(response.mean[way] <= bound)])
        low, high = (before, after) if verdict == "from" else (after, before)
        return Needed(verdict, crossing, low, high)  # type: ignore[arg-type]
    return Needed("cannot tell")


def _ends(kept: np.ndarray, broken: np.ndarray) -> tuple[int | None, int | None] | None:
    """(last point of those at the beginning that break the bound, first of those at the end that keep it); None for neither,
    or where others are kept or broken too, which no rising or falling curve allows."""
    first_kept = len(kept) - int(np.argmin(np.append(kept[::-1], False)))
    last_broken = int(np.argmin(np.append(broken, False))) - 1
    if kept[:first_kept].any() or broken[last_broken + 1 :].any():
        return None
    ends = (last_broken if last_broken >= 0 else None, first_kept if first_kept < len(kept) else None)
    return None if ends == (None, None) else ends
