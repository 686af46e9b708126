"""Where a trial's time and memory go, phase by phase: the quickstart's trial on the miniature base, or that of a spec.

`make benchmark`, or `python -m tests.benchmarks.trial [SPEC.yaml] [--hub-mirror DIR]`. The second run in a process that
has loaded everything already is what a sweep's worker sees.
"""

import argparse
import os
import tempfile
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]


def quickstart() -> dict:
    """The quickstart's trial, without its space."""
    config = yaml.safe_load((ROOT / "configs" / "quickstart.yaml").read_text())
    return {name: config[name] for name in ("base", "data", "lora", "train", "eval")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("spec", nargs="?", type=Path)
    parser.add_argument("--hub-mirror")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", str(options.threads))
    import torch

    from trials.hub.hub import Hub
    from trials.ledger.record import Ledger
    from trials.run.worker import Worker
    from trials.spec import TrialSpec

    torch.set_num_threads(options.threads)
    spec = TrialSpec.model_validate(yaml.safe_load(options.spec.read_text()) if options.spec else quickstart())
    with tempfile.TemporaryDirectory() as folder:
        worker = Worker(Ledger(folder), Hub(options.hub_mirror))
        for told, seed in (("first trial of a process", 0), ("second trial", 1)):
            seeded = spec.model_copy(update={"train": spec.train.model_copy(update={"seed": seed})})
            record = worker.run(seeded)
            if record.failure:
                raise SystemExit(record.failure.traceback)
            print(f"\n{told}: {sum(record.seconds.values()):.1f} s, {record.hardware['cpu']}, GPU {record.hardware['gpu']}")
            print(f"{'phase':<24}{'seconds':>10}{'host MiB':>12}{'device MiB':>12}")
            for phase, seconds in record.seconds.items():
                peak = record.memory.get(phase, {})
                cells = [f"{peak[where] / 2**20:>12.0f}" if where in peak else f"{'-':>12}" for where in ("host", "device")]
                print(f"{phase:<24}{seconds:>10.2f}{''.join(cells)}")


if __name__ == "__main__":
    main()
