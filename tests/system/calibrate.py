"""Whether the statistics are right where the truth is known: `make calibrate` (python -m tests.system.calibrate).

Outcomes are simulated document by document and seed by seed (`tests/system/calibration/worlds.py`); truths are those of the
population of documents and seeds. Prints what is claimed, told and true; ends with 1 where a claim does not hold.
"""

import argparse
import sys
from collections.abc import Iterator

import numpy as np

from tests.system.calibration.claims import Claim
from tests.system.calibration.coverage import coverage
from tests.system.calibration.mix import mix
from tests.system.calibration.races import races
from tests.system.calibration.sweeps import sweeps


def claims(scale: float) -> Iterator[Claim]:
    for seed, part, count in ((0, coverage, 600), (1, sweeps, 50), (2, races, 60), (3, mix, 400)):
        yield from part(np.random.default_rng(seed), max(int(count * scale), 1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=float, default=1.0, help="multiplies the number of simulations")
    options = parser.parse_args()
    print(f"{'claim':70}    told    true")
    broken = []
    for claim in claims(options.scale):
        print(claim, flush=True)
        broken += [] if claim.holds else [claim.what]
    if broken:
        sys.exit(f"{len(broken)} claims do not hold: {'; '.join(broken)}")


if __name__ == "__main__":
    main()
