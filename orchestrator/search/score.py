"""Noisy expected hypervolume improvement under constraints (Daulton et al. 2021, arXiv:2105.08195).

A draw of all objectives at the known and the running points gives a front that may be the true one. Given that draw, the gain
that a candidate promises has a closed form (`improvement`), and so has the probability that it keeps the constraints. Their
product, averaged over draws, ranks candidates: points all over the space and around the best known ones.
"""

from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr

from orchestrator.search.evidence import Aim, Evidence
from orchestrator.search.gaussian import Draw, Inputs, Process
from orchestrator.search.improvement import boxes, expected_gain, nondominated

_KERNELS = 8  # sets of hyperparameters
_DRAWS = 4  # functions for each of them
_LEAST = 1e-250  # smaller than any gain


@dataclass(frozen=True)
class Known:
    """n trials and their outcomes: those of the search, then earlier ones, which are no part of its front."""

    inputs: Inputs
    evidence: Evidence
    earlier: int = 0
    """Number of the earlier ones."""
    whole: np.ndarray | None = None
    """Shape (n - earlier,): False for outcomes after a part of the training rows, which are no points of a front.
    None: all are True."""


class Score:
    """The acquisition function of one proposal."""

    def __init__(self, aim: Aim, reference: np.ndarray, bases: np.ndarray, random: np.random.Generator):
        """`reference` (m,) and `bases` (b, m) are oriented."""
        self._aim, self._reference, self._bases, self.random = aim, reference, bases, random

    def learn(self, known: Known, pending: np.ndarray) -> None:
        """`pending` (p, columns) are features of the running trials."""
        evidence = known.evidence
        n, columns = evidence.values.shape
        processes = [Process(known.inputs, evidence.values[:, i], evidence.variances[:, i]) for i in range(columns)]
        thetas = [process.fit(_KERNELS, self.random) for process in processes]
        self._means = np.column_stack([process.means(own[0]) for process, own in zip(processes, thetas, strict=True)])
        self._foreign = known.inputs.contexts != 0
        found = np.r_[: n - known.earlier, n : n + len(pending)]
        self._draws: list[list[Draw]] = []
        self._corners = []
        self.values: list[np.ndarray] = []
        """A draw of outcomes (n - earlier + p, columns) each: the search's own trials, then the running ones."""
        self.factors: list[np.ndarray] = []
        """Shape (columns,) for each draw: what reported variances are multiplied by."""
        own = np.ones(n - known.earlier, bool) if known.whole is None else known.whole
        whole = np.append(own, np.ones(len(pending), bool))
        for h in range(_KERNELS):
            normals = self.random.standard_normal((columns, _DRAWS, n + len(pending)))
            draws = [p.draw(theta[h], pending, z) for p, theta, z in zip(processes, thetas, normals, strict=True)]
            self._draws.append(draws)
            values = np.stack([draw.values for draw in draws], axis=2)[:, found]  # (s, n - earlier + p, columns)
            self.values += list(values)
            self.factors += [np.exp([theta[h][-1] for theta in thetas])] * _DRAWS
            self._corners += [self.corners(one[whole]) for one in values]

    def feasible(self, values: np.ndarray) -> np.ndarray:
        """Whether drawn outcomes (n, columns) keep the constraints (n,)."""
        m = len(self._aim.signs)
        return np.asarray(np.hstack([values[:, :m] >= self._aim.least, values[:, m:] >= 0]).all(axis=1))

    def corners(self, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The boxes that the front of drawn outcomes (n, columns) and of the bases leaves free."""
        front = values[self.feasible(values), : len(self._aim.signs)]
        return boxes(nondominated(np.vstack([front, self._bases])), self._reference)

    def promising(self, count: int) -> np.ndarray:
        """Places of known points to look around: the feasible front of the means first, then the nearest to it.

        None of another context, whose means are not the search's.
        """
        m = len(self._aim.signs)
        values = self._means[:, :m]
        violated = np.minimum(values - self._aim.least, 0.0).sum(axis=1) + np.minimum(self._means[:, m:], 0.0).sum(axis=1)
        dominated = ((values[None] >= values[:, None]).all(axis=2) & (violated[None] >= violated[:, None])).sum(axis=1)
        order = np.lexsort((dominated, violated < 0, self._foreign))
        return order[: min(count, int((~self._foreign).sum()))]

    def __call__(self, rows: np.ndarray, quickly: bool = False) -> np.ndarray:
        """Scores (c,) of the rows (c, columns); `quickly` from an eighth of the draws."""
        m = len(self._aim.signs)
        total, chance = np.zeros(len(rows)), np.zeros(len(rows))
        kernels, functions = (_KERNELS // 2, 1) if quickly else (_KERNELS, _DRAWS)
        for h, draws in enumerate(self._draws[:kernels]):
            given = [draw.at(rows) for draw in draws]
            sd = np.stack([own for _, own in given[:m]], axis=1)
            for s in range(functions):
                mean = np.stack([means[s] for means, _ in given[:m]], axis=1)
                kept = np.ones(len(rows))
                for means, spread in given[m:]:
                    kept = kept * ndtr(means[s] / spread)
                total += kept * expected_gain(mean, sd, self._corners[h * _DRAWS + s], self._aim.least)
                chance += kept
        # where no draw sees a gain, the way to feasible points leads
        return (total + _LEAST * chance) / (kernels * functions)
