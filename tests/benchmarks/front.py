"""How long a million points take: whether each is on the front, the first ranks, all ranks, and the course of 10,000 trials.

`python -m tests.benchmarks.front [POINTS]`. The points are normal and independent: few are on the front, ranks are many.
"""

import sys
import time
from collections.abc import Callable

import numpy as np

from analysis.stats import pareto

FIRST = 5  # ranks


def main() -> None:
    n = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    print(f"{'points':>9} {'objectives':>10} {'what':>14} {'found':>8} {'seconds':>8}")
    for m in (2, 3, 4):
        points = np.random.default_rng(m).normal(size=(n, m))
        _tell(points, "front", lambda points, all_: pareto.ranks(points, all_, 1) == 0)
        _tell(points, f"first {FIRST} ranks", lambda points, all_: pareto.ranks(points, all_, FIRST) < FIRST)
        _tell(points, "all ranks", pareto.ranks)
        _tell(points[:10_000], "course", lambda points, all_: pareto.hypervolumes(points, all_, np.full(points.shape[1], 4.0)))


def _tell(points: np.ndarray, what: str, work: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> None:
    start = time.perf_counter()
    found = work(points, np.ones(len(points), dtype=bool))
    seconds = time.perf_counter() - start
    many = found.sum() if found.dtype == bool else len(np.unique(found))
    print(f"{len(points):>9} {points.shape[1]:>10} {what:>14} {many:>8} {seconds:>8.2f}")


if __name__ == "__main__":
    main()
