"""The part that times a trial of a 1B shape: slimsweep's worker and the tuned script."""

import json
import subprocess
import sys
from collections.abc import Iterator

import torch

from tests.gpu_check.finding import Finding, World, code


def programs(world: World) -> Iterator[Finding]:
    """slimsweep's worker and the tuned script, where there is a GPU: `make bench-gpu` in two calls."""
    if not torch.cuda.is_available():
        return
    folder = world.folder.parent / f"programs-{code()[:12]}"  # of this code: a call that is cut off keeps what has ended
    folder.mkdir(exist_ok=True)
    for program in ("slimsweep", "tuned"):
        command = [sys.executable, "-m", "tests.benchmarks.gpu", "--folder", str(folder), "--programs", program]
        if not (folder / f"{program}.json").exists():
            subprocess.run(command, check=True)
    found = {name: json.loads((folder / f"{name}.json").read_text()) for name in ("slimsweep", "tuned")}
    seconds = {name: sum(one["seconds"].values()) for name, one in found.items()}
    yield Finding("seconds of a trial of a 1B shape", seconds["slimsweep"], 30.0)
    yield Finding("of the tuned script's", seconds["slimsweep"] / seconds["tuned"], 1 / 8)
