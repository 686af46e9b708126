"""What another sweep's trials are worth to a new one: `python -m tests.benchmarks.search.earlier`.

The other sweep searches the same space in another draw of documents, with the same effects of the settings, similar or the
opposite ones. "all" is the hypervolume of the new sweep's own trials, in true values, as a share of the best.
"""

import argparse
import dataclasses
import sys
import warnings
from collections.abc import Callable

import numpy as np
import optuna

from analysis.metrics.names import parse_constraint
from orchestrator.search.earlier import EarlierTrial, keep
from tests.benchmarks.search.__main__ import judge, run
from tests.benchmarks.search.competitors import InOptuna, searcher
from tests.benchmarks.search.families import FAMILIES, Family
from tests.benchmarks.search.world import World

Shifts = tuple[float, float, float]
EFFECTS: dict[str, Callable[[float, float, float], Shifts]] = {
    "same": lambda skill, kept, known: (skill, kept, known),
    "similar": lambda skill, kept, known: (0.8 * skill + 0.1, 1.2 * kept - 0.15, known),
    "opposite": lambda skill, kept, known: (-skill, -kept, known),
}
"""Changes of the logits in the other sweep, from those in the new one."""
_OTHER = 1000  # added to the seed of the other sweep


def earlier(family: Family, effects: str, trials: int, seed: int) -> list[EarlierTrial]:
    """The trials of the other sweep."""
    change = EFFECTS[effects]
    other = dataclasses.replace(family, shifts=lambda settings: change(*family.shifts(settings)))
    world, constraint = World(other, _OTHER + seed), parse_constraint(family.constraint)
    search = searcher("auto", lambda name: other.config(name, trials, _OTHER + seed), seed, family.reference)
    found = []
    for place in range(trials):
        trial, settings = search.ask()
        metrics, errors = world.measure(settings)
        search.tell(trial, metrics, errors)
        found.append(
            EarlierTrial(
                key=str(place),
                settings=settings,
                context={} if effects == "same" else {"base.model": effects},
                values=(metrics["commonsense.gain"], metrics["math.forgetting"]),
                violations={str(constraint): constraint.violation(metrics[constraint.metric])},
                errors=errors,
            )
        )
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--families", default="four")
    parser.add_argument("--effects", default=f"none,{','.join(EFFECTS)}")
    parser.add_argument("--earlier", type=int, default=24, help="trials of the other sweep")
    parser.add_argument("--trials", default="8,16", help="counts of trials after which the search is judged")
    parser.add_argument("--seeds", type=int, default=12)
    options = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore")
    counts = [int(count) for count in options.trials.split(",")]
    for name in options.families.split(","):
        family = FAMILIES[name]
        for effects in options.effects.split(","):
            found: dict[int, list[float]] = {count: [] for count in counts}
            for seed in range(options.seeds):
                known = [] if effects == "none" else earlier(family, effects, options.earlier, seed)

                def begin(search: InOptuna, known: list[EarlierTrial] = known) -> None:
                    keep(search.study, known)

                true, measured, feasible, _ = run(family, "auto", max(counts), seed, begin)
                for count in counts:
                    found[count].append(judge(family, true[:count], measured[:count], feasible[:count])["all"])
            told = "  ".join(f"all@{n} {np.mean(v):.3f}±{np.std(v, ddof=1) / np.sqrt(len(v)):.3f}" for n, v in found.items())
            print(f"{name:12} {effects:9} {told}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
