"""Whether the statistics are right where the truth is known: `make calibrate` (python -m tests.system.calibrate), some minutes.

1. Coverage: of 8,000 simulated trials each, how many 95 % intervals hold the truth (93 % to 97 % are asked for), how wide.
2. Probabilities to be on the front, and to keep a constraint: of all points told p, a share of p has to be there.
3. The winner's curse: what the best of 40 looks like, and what it is said to be worth after the correction.

Outcomes are simulated document by document, as a base and its fine-tunings answer: shared documents, a base that all trials
have, few flips, seeds that shift all documents, clusters. Truths are those of the population of documents and seeds.
"""

import argparse
import sys
from collections.abc import Callable, Iterator

import numpy as np

from analysis.metrics.definitions import ALL_KINDS
from analysis.metrics.names import Constraint, Criteria, Objective
from analysis.stats import pareto
from analysis.stats.bootstrap import Errors, draws_for
from analysis.stats.intervals import interval, share_interval, spread
from analysis.stats.paired_outcomes import Answers
from analysis.stats.posterior import judge
from analysis.stats.untrained import Untrained

OBJECTIVES = (
    Objective(metric="commonsense.gain", direction="maximize"),
    Objective(metric="math.forgetting", direction="minimize"),
)
CONSTRAINTS = (Constraint("math.forgetting", "<=", 0.10),)
CRITERIA = Criteria(OBJECTIVES, CONSTRAINTS)
TRIALS = 40


def answered(
    random: np.random.Generator, right: float, gain: np.ndarray, flips: float, n: int, seeds: float = 0.0, cluster: int = 1
) -> Answers:
    """Answers of t settings that truly gain `gain` (t, r), of which a share `flips` of the documents flips beside that.

    `seeds` is the standard deviation of a seed's own gain; documents of one cluster are the same in `cluster` of them.
    """
    t, r = gain.shape
    base = np.repeat(random.random(n // cluster) < right, cluster)
    gain = gain + random.normal(0, seeds, (t, r)) if seeds else gain
    moving = np.maximum(flips, np.abs(gain))
    lost, won = (moving - gain) / 2 / right, (moving + gain) / 2 / (1 - right)
    luck = np.repeat(random.random((t, r, n // cluster)), cluster, axis=2)
    flipped = luck < np.where(base, lost[..., None], won[..., None])
    columns = {"score": (base ^ flipped).astype(np.float32)}
    starts = np.arange(0, n, cluster)
    return Answers(columns, {"score": base.astype(np.float32)}, random.integers(0, 2**32, len(starts), np.uint32), starts)


def coverage(random: np.random.Generator, runs: int) -> Iterator[tuple[str, float, float]]:
    """(what, share of intervals that hold the truth, mean width)"""
    cases: list[tuple[str, str, dict[str, float]]] = [
        ("gain, 300 documents, 6 % flip", "gain", {"right": 0.6, "gain": 0.02, "flips": 0.06, "n": 300}),
        ("gain, 1,000 documents, 2 % flip", "gain", {"right": 0.6, "gain": 0.004, "flips": 0.02, "n": 1000}),
        ("gain, 1,000 documents in pairs", "gain", {"right": 0.6, "gain": 0.01, "flips": 0.08, "n": 1000, "cluster": 2}),
        ("drop, 100 documents", "drop", {"right": 0.45, "gain": -0.13, "flips": 0.2, "n": 100}),
        ("forgetting, base 0.26, 200 documents", "forgetting", {"right": 0.26, "gain": -0.1, "flips": 0.14, "n": 200}),
        ("forgetting, base 0.9, 200 documents", "forgetting", {"right": 0.9, "gain": -0.09, "flips": 0.11, "n": 200}),
        ("value, 200 documents", "value", {"right": 0.6, "gain": 0.1, "flips": 0.2, "n": 200}),
        ("gain, 3 seeds", "gain", {"right": 0.6, "gain": 0.02, "flips": 0.1, "n": 500, "seeds": 0.01, "r": 3}),
        ("gain, 5 seeds", "gain", {"right": 0.6, "gain": 0.02, "flips": 0.1, "n": 500, "seeds": 0.01, "r": 5}),
        ("gain, 3 seeds that differ much", "gain", {"right": 0.6, "gain": 0.0, "flips": 0.1, "n": 1000, "seeds": 0.03, "r": 3}),
        ("forgetting, 5 seeds", "forgetting", {"right": 0.5, "gain": -0.1, "flips": 0.2, "n": 300, "seeds": 0.02, "r": 5}),
    ]
    for what, kind, case in cases:
        held, widths = [], []
        for _ in range(runs):
            low, high, truth = _one_interval(random, kind, dict(case))
            held.append(low <= truth <= high)
            widths.append(high - low)
        yield what, float(np.mean(held)), float(np.mean(widths))


def _one_interval(random: np.random.Generator, name: str, case: dict[str, float]) -> tuple[float, float, float]:
    r, kind = int(case.pop("r", 1)), ALL_KINDS[name]
    n, cluster = int(case.pop("n")), int(case.pop("cluster", 1))
    gain, right = case.pop("gain"), case["right"]
    own = answered(random, gain=np.full((1, r), gain), n=n, cluster=cluster, **case)  # type: ignore[arg-type]
    truth = {"gain": gain, "drop": -gain, "forgetting": -gain / right, "value": right + gain}[name]
    values = own.value(kind)
    variance, steps = spread(own.influence(kind), values)
    if name == "value":
        ends = share_interval(values.mean(axis=1), variance, steps, np.array([float(n)]))
    else:
        unit = kind.unit({"score": own.base["score"].mean(dtype=float)}) if kind.unit else None
        ends = interval(values.mean(axis=1), variance, steps, np.reshape(unit, -1), np.array([float(n * r)]))
    return float(ends[0][0]), float(ends[1][0]), truth


Truths = Callable[[np.random.Generator], tuple[np.ndarray, np.ndarray]]
"""Makes the true gain and drop, each (t,), of a sweep's trials."""


def trade_off(random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """What gains more forgets more."""
    strength = random.normal(0, 1, TRIALS)
    return 0.01 * strength + random.normal(0, 0.01, TRIALS), 0.05 + 0.03 * strength + random.normal(0, 0.02, TRIALS)


def ruined(random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Most settings hardly differ, some ruin everything."""
    gain, drop = random.normal(0.005, 0.006, TRIALS), random.normal(0.05, 0.02, TRIALS)
    bad = random.random(TRIALS) < 0.3
    return np.where(bad, gain - random.uniform(0.05, 0.25, TRIALS), gain), np.where(
        bad, random.uniform(0.2, 0.65, TRIALS), drop
    )


def alike(random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """No setting differs from another."""
    return np.full(TRIALS, 0.005), np.full(TRIALS, 0.04)


def sweep(random: np.random.Generator, truths: Truths) -> dict[str, np.ndarray]:
    """One simulated sweep, judged; beside it the truth."""
    gain, drop = truths(random)
    roles = [answered(random, 0.6, gain[:, None], 0.06, 300), answered(random, 0.7, -drop[:, None], 0.08, 200)]
    kinds = [ALL_KINDS["gain"], ALL_KINDS["forgetting"]]
    values = np.column_stack([own.value(kind)[:, 0] for own, kind in zip(roles, kinds, strict=True)])
    watched = Errors(TRIALS, CRITERIA.metrics, draws_for(TRIALS))
    for role, own in zip(("commonsense", "math"), roles, strict=True):
        watched.add(role, np.arange(TRIALS), own)
    errors = watched.draws([], {}, "all")
    base = Untrained(np.zeros((1, 2)), np.zeros((len(errors), 1, 2)))  # a gain and a forgetting of 0
    found = judge(values, errors, CRITERIA, pareto.reference_point(OBJECTIVES, CONSTRAINTS), base)
    true = np.column_stack([gain, drop / 0.7])
    kept = true[:, 1] <= CONSTRAINTS[0].bound
    seen = values[:, 1] <= CONSTRAINTS[0].bound
    best = int(np.argmax(values[:, 0]))
    low, high = np.percentile(found.draws[:, best, 0], [2.5, 97.5])
    return {
        "p_front": found.p_front,
        "on_front": _beside_the_base(true, kept),
        "apparent": _beside_the_base(values, seen),
        "p_feasible": found.p_feasible,
        "feasible": kept,
        "raw": values[best, 0] - gain[best],
        "corrected": found.corrected[best, 0] - gain[best],
        "held": np.array(low <= gain[best] <= high),
        "error": errors[:, best, 0].std(),
    }


def _beside_the_base(points: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """Mask (t,) of the front, on which the base counts as a point."""
    both = pareto.orient(np.vstack([points, np.zeros((1, 2))]), OBJECTIVES)
    return pareto.front(both, np.append(kept, True))[:-1]


def table(told: np.ndarray, true: np.ndarray) -> Iterator[tuple[float, float, float, int]]:
    """(mean probability told, share that is true, its standard error, points) in ten classes of probability."""
    for low in np.arange(10) / 10:
        inside = (told >= low) & ((told < low + 0.1) | (low == 0.9))
        if inside.sum() >= 50:
            share = float(true[inside].mean())
            error = float(np.sqrt(max(share * (1 - share), 0.01) / inside.sum()))
            yield float(told[inside].mean()), share, error, int(inside.sum())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=8_000, help="simulated trials for each coverage")
    parser.add_argument("--sweeps", type=int, default=300, help="simulated sweeps of 40 trials for each kind of truth")
    options = parser.parse_args()
    random, wrong = np.random.default_rng(0), []
    print(f"95 % intervals over {options.runs} simulations: share that holds the truth, mean width")
    for what, share, width in coverage(random, options.runs):
        wrong += [] if 0.93 <= share <= 0.97 else [what]
        print(f"  {what:40} {share:6.1%}  {width:.4f}")
    for truths in (trade_off, ruined, alike):
        runs = [sweep(random, truths) for _ in range(options.sweeps)]
        told = {name: np.array([run[name] for run in runs]) for name in runs[0]}
        print(f"{truths.__name__}: {options.sweeps} sweeps of {TRIALS} trials. {truths.__doc__}")
        if truths is not alike:
            truly, said = (told[name][told["apparent"]].mean() for name in ("on_front", "p_front"))
            print(f"  of the apparent front {truly:.0%} are truly on it; p_front told them {said:.0%}")
            for what, true in (("p_front", "on_front"), ("p_feasible", "feasible")):
                print(f"  {what}: told, true, points")
                for mean, share, error, points in table(told[what].ravel(), told[true].ravel()):
                    off = abs(mean - share) > 0.05 + 2 * error
                    wrong += [f"{truths.__name__} {what} {mean:.2f}"] if off else []
                    print(f"    {mean:5.2f}  {share:5.2f}  {points}")
        units = told["error"].mean()
        raw, corrected = told["raw"].mean() / units, told["corrected"].mean() / units
        held = told["held"].mean()
        off = abs(corrected) > 0.3 or held < 0.92
        wrong += [f"{truths.__name__}: the best, corrected"] if off else []
        print(f"  the best gain is off by {raw:+.2f} standard errors, corrected by {corrected:+.2f};", end=" ")
        print(f"its corrected interval holds {held:.1%}")
    if wrong:
        sys.exit(f"not calibrated: {'; '.join(wrong)}")


if __name__ == "__main__":
    main()
