"""What the driver's own work on a trial costs as a sweep grows: `python -m tests.benchmarks.growth` takes about three minutes.

The sweep is real (study, sampler, ledger, manifest) and its trials do nothing; Ray is left out, its share is measured by
tests.benchmarks.driver. CPU seconds of this process, mean over some trials each, with `known` trials told and `running` ones
handed out. A least-squares fit says what a trial known and a trial running add: orchestrator.simulate holds such figures.
"""

import argparse
import json
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from orchestrator.search import sampler as sampling
from orchestrator.sweep.controller import SweepController
from orchestrator.sweep.queue import Job
from tests.benchmarks.driver import config
from trials.ledger.record import Score, TrialRecord

_GRID = ((250, 0), (250, 250), (1000, 0), (1000, 1000), (2500, 0), (2500, 1000))  # (known, running), ascending in known


class Growing:
    """A sweep of trials that leave a record with scores made from their key."""

    def __init__(self, sampler: str, storage: Path):
        self.config = config("random", 1_000_000)
        self.sampler = sampler
        self.sweep = SweepController.open(self.config, storage)
        self.running: deque[Job] = deque()
        self.told = 0
        self._start()
        self._finish()  # the baseline
        self.told = 0

    def grow(self, known: int, running: int) -> None:
        """Draws at random, for the points are of no matter here."""
        self.sweep.study.optuna_study.sampler = sampling.make_sampler(self.config, self.told, self.sweep.state.manifest.seen)
        while self.told + len(self.running) < known + running:
            self._start()
            if len(self.running) > running:
                self._finish()
        while len(self.running) > running:
            self._finish()

    def measure(self, trials: int) -> tuple[float, float]:
        """CPU seconds to hand a trial out and to take its result, means over so many trials."""
        search = self.config.search.model_copy(update={"sampler": self.sampler, "trials": 1_000_000})
        wanted = self.config.model_copy(update={"search": search})
        self.sweep.study.optuna_study.sampler = sampling.make_sampler(wanted, self.told, self.sweep.state.manifest.seen)
        asked, told = [], []
        for _ in range(trials):
            with _cpu_seconds(asked):
                self._start()
            self._leave(self.running[0])
            with _cpu_seconds(told):
                self._take()
        return float(np.mean(asked)), float(np.mean(told))

    def _start(self) -> None:
        job = self.sweep.next_job()
        assert job is not None
        self.running.append(job)

    def _finish(self) -> None:
        self._leave(self.running[0])
        self._take()

    def _take(self) -> None:
        self.sweep.finish(self.running.popleft().spec.key)
        self.told += 1

    def _leave(self, job: Job) -> None:
        """What the worker would do."""
        key = job.spec.key
        shares = (int(key[:4], 16) / 65535, int(key[4:8], 16) / 65535)
        roles = zip(job.spec.eval, shares, strict=True)
        scores = {role: Score(value=0.2 + 0.6 * share, stderr=0.01, n=1000) for role, share in roles}
        self.sweep.ledger.write(TrialRecord(key=key, state="complete", spec=job.spec, scores=scores, seconds={"train": 0.0}))


@contextmanager
def _cpu_seconds(into: list[float]) -> Iterator[None]:
    began = time.process_time()
    yield
    into.append(time.process_time() - began)


def fit(rows: list[tuple[int, int, float]]) -> tuple[float, float, float]:
    """(seconds, seconds per trial known, seconds per trial running) of rows (known, running, seconds), none below 0."""
    from scipy.optimize import nnls

    known, running, seconds = np.array(rows, dtype=float).T
    weights = 1 / seconds  # relative errors count
    terms = np.stack([np.ones_like(known), known, running], axis=1)
    (base, per_known, per_running), _ = nnls(terms * weights[:, None], seconds * weights)
    return float(base), float(per_known), float(per_running)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sampler", default="tpe")
    parser.add_argument("--trials", type=int, default=20, help="that each mean is of")
    parser.add_argument("--known", type=int, default=2500, help="no more trials than these")
    options = parser.parse_args()
    asks, tells = [], []
    with tempfile.TemporaryDirectory(prefix="slimsweep-growth-") as storage:
        growing = Growing(options.sampler, Path(storage))
        for known, running in [point for point in _GRID if point[0] <= options.known]:
            growing.grow(known, running)
            ask, tell = growing.measure(options.trials)
            print(f"{known:6} known {running:6} running: ask {ask:.4f} s, tell {tell:.4f} s", flush=True)
            asks.append((known, running, ask))
            tells.append((known, running, tell))
    for name, rows in (("ask", asks), ("tell", tells)):
        base, per_known, per_running = fit(rows)
        print(json.dumps({name: {"seconds": base, "per_known": per_known, "per_running": per_running}}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
