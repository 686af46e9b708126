"""How much of the best front a sampler finds: `python -m tests.benchmarks.search`.

Two workers run at once, so every proposal is made while another trial runs. "shown" is the hypervolume of the true values of
the trials that a front would show, "all" that of all trials, as shares of the best; "front" is the share of the best front that
some trial comes close to. Means and standard errors over seeds; CPU seconds of a proposal at the last count of trials.
"""

import argparse
import json
import os
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"  # CPU seconds are those of one core

import numpy as np
import optuna

from analysis.metrics.names import parse_constraint
from analysis.stats import pareto
from tests.benchmarks.search.competitors import searcher
from tests.benchmarks.search.families import FAMILIES, Family
from tests.benchmarks.search.table import Table
from tests.benchmarks.search.world import World

_NEAR = 0.1  # of the front's range in each objective: within it a trial stands for a point of the front
PLACES: dict[str, Family | Table] = {**FAMILIES, Table.name: Table()}
SAMPLERS = ("auto", "tpe", "random", "optuna-tpe", "optuna-gp", "botorch")


def run(
    family: Family | Table, sampler: str, trials: int, seed: int, begin: Callable[[Any], None] = lambda search: None
) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[float]]:
    """(true objectives (n, 2), measured ones, whether truly and apparently feasible (n, 2), seconds of each proposal).

    `begin` gets the searcher before its first proposal.
    """
    world = World(family, seed) if isinstance(family, Family) else family.world(seed)
    constraint = parse_constraint(family.constraint)
    search = searcher(sampler, lambda name: family.config(name, trials, seed), seed, family.reference)
    begin(search)
    running: list[tuple[Any, dict[str, Any]]] = []
    true, measured, feasible, seconds = [], [], [], []
    order = np.random.default_rng(seed)
    while len(true) < trials:
        if len(running) < 2:
            began = time.process_time()
            running.append(search.ask())
            seconds.append(time.process_time() - began)
            continue
        trial, settings = running.pop(int(order.integers(2)))
        metrics, errors = world.measure(settings)
        search.tell(trial, metrics, errors)
        value, kept = family.truth(settings)
        true.append(value)
        measured.append([-metrics["commonsense.gain"], metrics["math.forgetting"]])
        feasible.append([kept, constraint.violation(metrics[constraint.metric]) <= 0])
    return np.array(true), np.array(measured), np.array(feasible), seconds


def judge(family: Family | Table, true: np.ndarray, measured: np.ndarray, feasible: np.ndarray) -> dict[str, float]:
    base = np.zeros((1, 2))
    apparent = pareto.front(np.vstack([measured, base]), np.append(feasible[:, 1], True))[:-1]
    shown, found = true[apparent & feasible[:, 0]], true[feasible[:, 0]]
    front = family.front[np.argsort(family.front[:, 0])]
    near = _NEAR * np.ptp(front, axis=0)
    # equal steps along the front, which evolution does not fill evenly
    steps = np.linspace(front[0, 0], front[-1, 0], 50)
    places = front[np.abs(np.subtract.outer(steps, front[:, 0])).argmin(axis=1)]
    close = [(found <= place + near).all(axis=1).any() for place in places]
    return {
        "shown": pareto.hypervolume(shown, family.reference) / family.best,
        "all": pareto.hypervolume(found, family.reference) / family.best,
        "front": float(np.mean(close)),
    }


def measure(family: Family | Table, sampler: str, counts: Sequence[int], seeds: int) -> dict[str, Any]:
    rows: dict[str, dict[int, list[float]]] = {name: {count: [] for count in counts} for name in ("shown", "all", "front")}
    seconds: list[float] = []
    for seed in range(seeds):
        true, measured, feasible, asked = run(family, sampler, max(counts), seed)
        seconds.append(float(np.mean(asked[-5:])))
        for count in counts:
            for name, value in judge(family, true[:count], measured[:count], feasible[:count]).items():
                rows[name][count].append(value)
    return {"family": family.name, "sampler": sampler, "seconds": float(np.mean(seconds)), **rows}


def told(row: dict[str, Any]) -> str:
    parts = [f"{row['family']:12} {row['sampler']:11}"]
    for name in ("shown", "all", "front"):
        for count, values in row[name].items():
            error = np.std(values, ddof=1) / np.sqrt(len(values)) if len(values) > 1 else float("nan")
            parts.append(f"{name}@{count} {np.mean(values):.3f}±{error:.3f}")
    return "  ".join(parts) + f"  {row['seconds']:.2f} s"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--families", default=",".join(PLACES))
    parser.add_argument("--samplers", default=",".join(SAMPLERS))
    parser.add_argument("--trials", default="16,32,64", help="counts of trials after which the search is judged")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--out", type=Path, default=Path("build/search.json"))
    options = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore")
    rows = []
    for family in options.families.split(","):
        for sampler in options.samplers.split(","):
            counts = [int(count) for count in options.trials.split(",")]
            rows.append(measure(PLACES[family], sampler, counts, options.seeds))
            print(told(rows[-1]), flush=True)
            options.out.parent.mkdir(parents=True, exist_ok=True)
            options.out.write_text(json.dumps(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
