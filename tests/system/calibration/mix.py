"""The law of the mix: in how many sweeps everything is true that is said of the share that keeps a bound."""

from collections.abc import Iterator

import numpy as np

from analysis.stats.response import needed, respond
from tests.factories import mix_worlds
from tests.system.calibration.claims import Claim

BOUND, LEAST = 0.09, 0.93  # on forgetting; on the share of sweeps
WORLDS: dict[str, dict[str, float]] = {
    "40 trainings, 200 documents": {},
    "settings multiply the forgetting": {"multiplied": True},
    "20 trainings": {"trials": 20},
    "no seeds, 60 documents": {"seeds": 0.0, "documents": 60},
    "a steep law": {"rate": 25.0},
    "100 trainings, 1,000 documents": {"trials": 100, "documents": 1000},
    "no effect": {"spread": 0.0, "floor": 0.06},
}


def mix(random: np.random.Generator, count: int) -> Iterator[Claim]:
    for what, case in WORLDS.items():
        said, true = 0, 0
        for _ in range(count):
            world = mix_worlds.simulated(random, **case)  # type: ignore[arg-type]
            response = respond(world.shares, world.others, world.values, world.errors)
            assert response is not None
            found = needed(response, "<=", BOUND)
            said += found.share is not None
            true += mix_worlds.holds(found, world, BOUND)
        note = f"{said / count:.0%} are told a share"
        yield Claim(f"law of the mix, {what}", 0.95, true / count, least=LEAST, note=note)
