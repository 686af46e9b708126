"""What multi-fidelity search spends and finds, beside the same search without it: `python -m tests.benchmarks.search.fidelity`.

The sweep's own controller hands jobs to two simulated workers; outcomes are those of the synthetic families, seconds those of a
profile. "time" is that of the workers, in whole trials. All trials brought to their end would make a front of measured values:
"recall" is the share of its members that were, "volume" the share of its hypervolume that the front of whole trials has.
"shown" is the hypervolume of that front's true values, as a share of the best.
"""

import argparse
import heapq
import itertools
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import optuna

from analysis.metrics.names import Estimate, parse_constraint
from analysis.stats import pareto
from orchestrator.config.model import SweepConfig
from orchestrator.sweep import fidelity, pause
from orchestrator.sweep.controller import SweepController
from tests.benchmarks.search.families import BASE, FAMILIES, Family
from tests.benchmarks.search.world import Trial, World
from trials.ledger.record import Score, TrialRecord

PROFILES = {"micro": (24.0, 5.0, 17.5), "paper": (41.0, 4.0, 55.0), "evaluation": (15.0, 5.0, 80.0)}
"""Seconds of a trial's training, its drift, its evaluation."""


class Simulation:
    def __init__(self, family: Family, config: SweepConfig, seed: int, profile: str, folder: Path):
        self.family, self.world = family, World(family, seed)
        self._training, self._drift, self._evaluation = PROFILES[profile]
        self.trials: dict[str, Trial] = {}
        self._done: dict[str, tuple[float, float]] = {}  # shares of rows and documents, by key
        self.spent, self._now = 0.0, 0.0
        self.sweep = SweepController.open(config, folder)
        self.sweep.state.records.estimates = self._estimates  # type: ignore[method-assign]

    def run(self) -> None:
        running: list[tuple[float, int, Any, Any]] = []
        order = itertools.count()  # of jobs that end at once
        while True:
            while len(running) < 2 and (job := self.sweep.next_job()) is not None:
                at = self.sweep.pause_of(job)
                seconds = self._seconds(job.spec, at)
                heapq.heappush(running, (self._now + seconds, next(order), job, (at, seconds)))
                self.trials.setdefault(job.spec.key, self.world.trial(job.settings) if job.number is not None else None)
            if not running:
                return
            self._now, _, job, (at, seconds) = heapq.heappop(running)
            if job.number is not None:
                self.spent += seconds
            self._end(job, at, seconds)

    def _seconds(self, spec: Any, at: Any) -> float:
        """Of the next run of a trial, as the worker would take."""
        if spec.is_baseline:
            return self._evaluation
        rows, documents = (at["rows"], at["documents"]) if at else (1.0, 1.0)
        done_rows, done_documents = self._done.get(spec.key, (0.0, 0.0))
        # an adapter of a part of the rows answers the same documents as the whole one
        before = done_documents if done_rows == rows else 0.0
        self._done[spec.key] = rows, documents
        seconds = self._training * (rows - done_rows) + self._evaluation / 2 * (documents - before)
        return seconds + (0.0 if at else self._drift + self._evaluation / 2)

    def _end(self, job: Any, at: Any, seconds: float) -> None:
        if at is not None:
            metrics, errors = self.world.look(self.trials[job.spec.key], at["rows"], at["documents"])
            found = {"rows": at["rows"], "documents": at["documents"]}
            found |= {
                "metrics": {name: metrics[name] for name in at["metrics"]},
                "errors": {n: errors[n] for n in at["metrics"]},
            }
            self.sweep.pause(job.spec.key, found, seconds)
            return
        scores = {role: Score(value=base, stderr=0.0, n=100) for role, base in BASE.items()}
        phases = {f"evaluate.{role}": self._evaluation / len(BASE) for role in BASE}
        self.sweep.ledger.write(TrialRecord(key=job.spec.key, state="complete", spec=job.spec, scores=scores, seconds=phases))
        self.sweep.finish(job.spec.key, seconds=seconds)

    def _estimates(self, record: TrialRecord, baseline: TrialRecord) -> dict[str, Estimate | None]:
        if (trial := self.trials[record.key]) is None:
            return {name: Estimate(0.0, 0.0) for name in ("commonsense.gain", "math.forgetting", "knowledge.drop")}
        metrics, errors = self.world.look(trial, 1.0, 1.0)
        return {name: Estimate(value, errors[name]) for name, value in metrics.items()}

    def judged(self) -> dict[str, float]:
        constraint = parse_constraint(self.family.constraint)
        own = {key: trial for key, trial in self.trials.items() if trial is not None}
        found = [self.world.look(trial, 1.0, 1.0)[0] for trial in own.values()]
        measured = np.array([[-one["commonsense.gain"], one["math.forgetting"]] for one in found])
        kept = np.array([constraint.violation(one[constraint.metric]) <= 0 for one in found])
        done = np.array([self.sweep.ledger.complete(key) is not None for key in own])
        base = np.zeros((1, 2))
        every = pareto.front(np.vstack([measured, base]), np.append(kept, True))[:-1]
        whole = pareto.front(np.vstack([measured, base]), np.append(kept & done, True))[:-1]
        truth = [self.family.truth(trial.settings) for trial in own.values()]
        true, truly = np.array([value for value, _ in truth]), np.array([feasible for _, feasible in truth])

        def volume(points: np.ndarray) -> float:
            return pareto.hypervolume(points, self.family.reference) if len(points) else 0.0

        return {
            "time": self.spent / (self._training + self._drift + self._evaluation),
            "complete": float(done.sum()),
            "recall": float((every & done).sum() / max(every.sum(), 1)),
            "volume": volume(measured[whole]) / max(volume(measured[every]), 1e-12),
            "shown": volume(true[whole & truly]) / self.family.best,
        }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--families", default="four")
    parser.add_argument("--profile", choices=PROFILES, default="paper")
    parser.add_argument("--trials", type=int, default=16)
    parser.add_argument("--seeds", default="0,1,2,3")
    parser.add_argument("--rungs", default="", help="such as 1:0.25,1:1 (rows:documents); default: the program's own")
    options = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore")
    if options.rungs:
        rungs = tuple(
            (float(rows), float(documents)) for rows, documents in (one.split(":") for one in options.rungs.split(","))
        )
        pause.RUNGS = fidelity.RUNGS = rungs
    for name in options.families.split(","):
        for seed in map(int, options.seeds.split(",")):
            for on in (True, False):
                config = FAMILIES[name].config("gp", options.trials, seed, multi_fidelity=on)
                with tempfile.TemporaryDirectory() as folder:
                    simulation = Simulation(FAMILIES[name], config, seed, options.profile, Path(folder))
                    simulation.run()
                    row = "  ".join(f"{what} {value:.3f}" for what, value in simulation.judged().items())
                print(f"{name} seed {seed} {'multi-fidelity' if on else 'whole trials  '}  {row}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
