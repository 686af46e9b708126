"""Racing's errors: how many sweeps lose a point of the front that they would have had."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from analysis.metrics.definitions import ALL_KINDS
from analysis.stats import pareto, racing
from analysis.stats.racing import STAGES, Interim, Part
from tests.system.calibration import worlds
from tests.system.calibration.claims import Claim
from tests.system.calibration.worlds import Bits, Shares, answers

TRIALS = 40


@dataclass(frozen=True)
class Race:
    what: str
    kinds: tuple[str, str]
    parts: tuple[worlds.Part, worlds.Part]
    spread: tuple[float, float]
    """Standard deviation of the settings' shifts."""
    n: int


EVEN = (Shares(0.6, 0.05, 0.1), Shares(0.7, 0.1, 0.15))
RACES = [
    *(Race("gain and forgetting", ("gain", "forgetting"), EVEN, (0.1, 0.15), n) for n in (300, 1000)),
    *(
        Race(f"gain and {shape} bits", ("gain", "gold_bpb_delta"), (EVEN[0], Bits(shape)), (0.1, 0.02), n)
        for shape in ("even", "skewed", "bimodal", "rare")
        for n in (300, 1000)
    ),
    Race("gain and operators' bits", ("gain", "gold_bpb_delta"), (EVEN[0], Bits("skewed", 0.1, tokens=3)), (0.1, 0.05), 1000),
    Race("two kinds of bits", ("gold_bpb_delta", "gold_bpb_delta"), (Bits("skewed"), Bits("bimodal")), (0.02, 0.02), 1000),
    Race("settings that hardly differ", ("gain", "forgetting"), EVEN, (0.01, 0.01), 1000),
    Race("settings with bits that hardly differ", ("gain", "gold_bpb_delta"), (EVEN[0], Bits("skewed")), (0.01, 0.002), 1000),
]
_SIGN = {"gain": -1.0, "forgetting": 1.0, "gold_bpb_delta": 1.0}


def races(random: np.random.Generator, count: int) -> Iterator[Claim]:
    for race in RACES:
        runs = np.array([_race(random, race) for _ in range(count)])
        lost, points, given_up, saved = runs.sum(axis=0) / count
        error = np.sqrt(racing.RISK / count)
        note = (
            f"{lost / points:.2%} of the front lost, {given_up / TRIALS:.0%} given up, {saved / TRIALS:.0%} of the work saved"
        )
        share = float((runs[:, 0] > 0).mean())
        yield Claim(f"racing, {race.what}, {race.n} documents", racing.RISK, share, most=racing.RISK + 2 * error, note=note)


def _race(random: np.random.Generator, race: Race) -> tuple[int, int, int, float]:
    """Points of the final front that were lost, points that it has, trials given up, evaluations saved."""
    stages = _stages(random, race)
    final = stages[-1].values
    members: list[int] = []
    given_up, saved = [], 0.0
    for one in range(TRIALS):
        stage = next((at for at in stages[:-1] if at.p_value(one, members) <= racing.level(TRIALS)), None)
        if stage is not None:
            given_up.append(one)
            saved += 1 - stage.share
            continue
        if not pareto.dominates(final[members], final[one]).any():
            members = [other for other in members if not pareto.dominates(final[one], final[other])] + [one]
    front = np.flatnonzero(pareto.front(final, np.ones(TRIALS, bool)))
    return len(np.intersect1d(front, given_up)), len(front), len(given_up), saved


def _stages(random: np.random.Generator, race: Race) -> Sequence[Interim]:
    strength, wholes = random.standard_normal(TRIALS), []
    for part, spread, name in zip(race.parts, race.spread, race.kinds, strict=True):
        own = (strength + random.standard_normal(TRIALS)) / np.sqrt(2)  # what gains more forgets more
        shifts = spread * {"gain": own, "forgetting": -own, "gold_bpb_delta": np.maximum(2 + own, 0)}[name]
        wholes.append(answers(part, random, shifts, race.n))
    kinds, signs = [ALL_KINDS[name] for name in race.kinds], [_SIGN[name] for name in race.kinds]
    found = []
    for share in (*STAGES, 1.0):
        firsts = [racing.first_documents(own, share) for own in wholes]
        values = np.column_stack([own.value(kind)[:, 0] for own, kind in zip(firsts, kinds, strict=True)])
        parts = [Part.of(own, kind) for own, kind in zip(firsts, kinds, strict=True)]
        found.append(Interim(share, values * signs, parts, signs))
    return found
