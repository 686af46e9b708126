"""A Gaussian process of one metric whose measurements have known errors.

Constant mean, Matern 5/2 kernel with a length scale for each group of columns (Rasmussen and Williams, Gaussian Processes for
Machine Learning, 2006, ch. 4 and 5). Hyperparameters are drawn around their most probable values (Laplace's approximation),
because a dozen trials do not determine them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.linalg import cho_solve, solve_triangular
from scipy.optimize import minimize

_LENGTH = (-0.7, 1.0)
"""Mean and standard deviation of the logarithm of a length scale a priori, for one group; the length rises with the root of
the number of groups (Hvarfner et al. 2024, arXiv:2402.02229)."""
_SIGNAL = (0.0, 0.7)  # of the kernel's variance, for values of variance 1
_KNOWN = (-0.7, 0.7)  # of the factor on reported variances: the half of them that is the base's own luck moves all trials alike
_UNKNOWN = (-3.0, 1.5)  # of the variance itself
_LUCK = 0.5  # correlation of the errors of two outcomes on the same part of the documents
_MEAN = 1.0  # variance of the mean
_SHIFT = 0.25  # variance of a constant by which another context differs
_KINSHIP = (0.3, 0.7)  # of the length of the step to another context: they correlate by two thirds a priori
_JITTER = 1e-6
_ITERATIONS = 50
_STEP = 1e-4  # of finite differences
_REACH = 2.0  # standard deviations within which hyperparameters are drawn


@dataclass(frozen=True)
class Inputs:
    """n points: features (n, columns), the columns' groups, contexts (n,), 0 for the search's own, and parts (n,), 0 for all
    documents.

    Outcomes on the same part of the documents share luck: some documents are hard for every trial.

    Points of another context were measured under other settings that are not searched. Their function is another one that
    correlates with the search's own, as a step along one more group would make it, and differs by a constant.
    """

    rows: np.ndarray
    groups: np.ndarray
    contexts: np.ndarray
    parts: np.ndarray

    def own(self, rows: np.ndarray) -> "Inputs":
        """These rows in the search's own context."""
        none = np.zeros(len(rows), dtype=int)
        return Inputs(rows, self.groups, none, none)

    def joined(self, rows: np.ndarray) -> "Inputs":
        """With these rows of the search's own context at the end."""
        none = np.zeros(len(rows), dtype=int)
        rows = np.vstack([self.rows, rows])
        return Inputs(rows, self.groups, np.concatenate([self.contexts, none]), np.concatenate([self.parts, none]))

    @property
    def foreign(self) -> bool:
        return bool(self.contexts.any())


@dataclass(frozen=True)
class Draw:
    """A function drawn at the n known points, under one set of hyperparameters; in units of the metric."""

    values: np.ndarray
    """Shape (s, n)."""
    process: "_Conditioned"

    def at(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean (s, c) and standard deviation (c,) at rows (c, columns) of the own context, given the drawn values."""
        return self.process.given(self.values, rows)


class Process:
    """`values` (n,) at the inputs, and their variances (n,), NaN where unknown."""

    def __init__(self, inputs: Inputs, values: np.ndarray, variances: np.ndarray):
        self._inputs = inputs
        self._center, self._scale = float(values.mean()), float(values.std()) or 1.0
        self._y = (values - self._center) / self._scale
        known = np.isfinite(variances)
        self._noise_prior = _KNOWN if known.any() else _UNKNOWN
        noise = variances / self._scale**2
        typical = float(np.median(noise[known])) if known.any() else 1.0
        # a few documents without a flip have no variance, and are not certain
        noise = np.maximum(np.where(known, noise, typical), 0.05 * typical) + _JITTER
        together = np.equal.outer(inputs.parts, inputs.parts) & (inputs.parts != 0)
        self._noise = np.where(together, _LUCK, 0.0) * np.sqrt(np.outer(noise, noise))
        """Covariance (n, n) of the errors."""
        self._noise[np.diag_indices(len(noise))] = noise
        self._squares, self._fixed = _squares(inputs, inputs), _fixed(inputs, inputs)
        self._priors = _priors(len(self._squares) - inputs.foreign, inputs.foreign, self._noise_prior)

    def fit(self, draws: int, random: np.random.Generator) -> np.ndarray:
        """Hyperparameters (draws, g + 2) from their distribution given the values, the most probable ones first."""
        start = self._priors[0]
        bounds = [(mean - 4 * sd, mean + 4 * sd) for mean, sd in zip(*self._priors, strict=True)]
        found = minimize(self._loss, start, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": _ITERATIONS})
        best = found.x
        if draws == 1:
            return best[None]
        root = self._spread(best)
        z = np.clip(random.standard_normal((draws - 1, len(best))), -_REACH, _REACH)
        low, high = np.array(bounds).T
        return np.vstack([best[None], np.clip(best + z @ root.T, low, high)])

    def _spread(self, best: np.ndarray) -> np.ndarray:
        """A root of the inverse Hessian of the loss; directions that the values say nothing of have the prior's spread."""
        center = self._loss(best)[1]
        hessian = np.array([(self._loss(best + _STEP * row)[1] - center) / _STEP for row in np.eye(len(best))])
        values, vectors = np.linalg.eigh((hessian + hessian.T) / 2)
        least = 1 / np.max(self._priors[1]) ** 2
        root: np.ndarray = vectors / np.sqrt(np.maximum(values, least))
        return root

    def _loss(self, theta: np.ndarray) -> tuple[float, np.ndarray]:
        """Negative log posterior density of the hyperparameters and its gradient (RW eq. 5.8 and 5.9)."""
        inverse = np.exp(-2 * theta[:-2])
        signal, factor = np.exp(theta[-2]), np.exp(theta[-1])
        n = len(self._y)
        root = np.sqrt(5 * np.tensordot(inverse, self._squares, 1))
        decay = np.exp(-root)
        kernel = signal * (1 + root + root**2 / 3) * decay
        covariance = kernel + self._fixed + factor * self._noise
        try:
            lower = np.linalg.cholesky(covariance)
        except np.linalg.LinAlgError:
            return 1e10, np.zeros_like(theta)
        solved = cho_solve((lower, True), np.column_stack([self._y, np.eye(n)]), check_finite=False)
        alpha, precision = solved[:, 0], solved[:, 1:]
        weight = precision - np.outer(alpha, alpha)  # twice the loss's derivative with respect to the covariance
        of_lengths = (weight * (signal * 5 / 3 * (1 + root) * decay)).ravel() @ self._squares.reshape(len(inverse), -1).T
        gradient = np.empty_like(theta)
        gradient[:-2] = 0.5 * of_lengths * inverse
        gradient[-2] = 0.5 * float((weight * kernel).sum())
        gradient[-1] = 0.5 * factor * float((weight * self._noise).sum())
        mean, sd = self._priors
        loss = (
            0.5 * float(self._y @ alpha)
            + float(np.log(lower.diagonal()).sum())
            + 0.5 * float((((theta - mean) / sd) ** 2).sum())
        )
        return loss, gradient + (theta - mean) / sd**2

    def draw(self, theta: np.ndarray, pending: np.ndarray, normals: np.ndarray) -> Draw:
        """Functions at the rows and the pending rows (p, columns), from standard normals (s, n + p)."""
        every = self._inputs.joined(pending)
        cross = _kernel(theta, _squares(every, self._inputs)) + _fixed(every, self._inputs)
        n = len(self._y)
        covariance = cross[:n] + np.exp(theta[-1]) * self._noise
        lower = np.linalg.cholesky(covariance)
        mean = cross @ cho_solve((lower, True), self._y)
        reduced = solve_triangular(lower, cross.T, lower=True, check_finite=False)
        prior = _kernel(theta, _squares(every, every)) + _fixed(every, every)
        root = _root(prior - reduced.T @ reduced)
        values = mean + normals @ root.T
        return Draw(
            self._center + self._scale * values,
            _Conditioned(every, theta, _root(prior), self._center, self._scale),
        )

    def means(self, theta: np.ndarray) -> np.ndarray:
        """The function's mean (n,) at the rows, in the metric's units."""
        kernel = _kernel(theta, self._squares) + self._fixed
        solved = np.linalg.solve(kernel + np.exp(theta[-1]) * self._noise, self._y)
        found: np.ndarray = self._center + self._scale * (kernel @ solved)
        return found


@dataclass(frozen=True)
class _Conditioned:
    inputs: Inputs
    theta: np.ndarray
    root: np.ndarray
    """Cholesky root of the kernel at the rows."""
    center: float
    scale: float

    def given(self, values: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        cross = _kernel(self.theta, _squares(self.inputs.own(rows), self.inputs)) + _MEAN
        reduced = solve_triangular(self.root, cross.T, lower=True, check_finite=False)  # (n, c)
        whitened = solve_triangular(self.root, (values - self.center).T / self.scale, lower=True, check_finite=False)
        variance = np.exp(self.theta[-2]) + _MEAN - np.einsum("nc,nc->c", reduced, reduced)
        return self.center + self.scale * (whitened.T @ reduced), self.scale * np.sqrt(np.maximum(variance, _JITTER))


def _priors(groups: int, foreign: bool, noise: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
    mean, sd = _LENGTH
    lengths: Sequence[tuple[float, float]] = [(mean + 0.5 * np.log(groups), sd)] * groups
    means, sds = np.array([*lengths, *([_KINSHIP] if foreign else []), _SIGNAL, noise]).T
    return means, sds


def _squares(one: Inputs, other: Inputs) -> np.ndarray:
    """Squared distances (g, n, m) by group; a last one between contexts, where there are several."""
    groups = int(one.groups.max()) + 1
    found = np.zeros((groups + other.foreign, len(one.rows), len(other.rows)))
    for column, group in enumerate(one.groups):
        found[group] += np.subtract.outer(one.rows[:, column], other.rows[:, column]) ** 2
    if other.foreign:
        found[groups] = np.not_equal.outer(one.contexts, other.contexts)
    return found


def _fixed(one: Inputs, other: Inputs) -> np.ndarray:
    """Covariance (n, m) of the constants: the mean, and the shift of a context that is not the own one."""
    same = np.equal.outer(one.contexts, other.contexts) & (one.contexts != 0)[:, None]
    found: np.ndarray = _MEAN + _SHIFT * same
    return found


def _kernel(theta: np.ndarray, squares: np.ndarray) -> np.ndarray:
    root = np.sqrt(5 * np.tensordot(np.exp(-2 * theta[:-2]), squares, 1))
    found: np.ndarray = np.exp(theta[-2]) * (1 + root + root**2 / 3) * np.exp(-root)
    return found


def _root(covariance: np.ndarray) -> np.ndarray:
    """Cholesky root of a covariance that may be singular."""
    jitter = _JITTER
    while True:
        try:
            found: np.ndarray = np.linalg.cholesky(covariance + jitter * np.eye(len(covariance)))
            return found
        except np.linalg.LinAlgError:
            jitter *= 10
