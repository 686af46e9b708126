"""What publishing its progress costs a trial: `python -m tests.benchmarks.progress`, on the miniature base.

Runs the same trial with and without it in turn, and compares the CPU seconds of this process, which other processes do not
move much. The trial takes some ten seconds, so that progress is written several times.
"""

import argparse
import os
import statistics
import tempfile
import time
from contextlib import nullcontext
from pathlib import Path
from unittest import mock

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

from tests.factories.configs import spec_of
from trials.hub.hub import Hub
from trials.ledger.record import Ledger
from trials.run.reporter import Reporter
from trials.run.worker import Worker
from trials.spec import TrialSpec

SILENT = {name: lambda *arguments, **named: None for name in ("phase", "phase_ended", "training", "step", "documents", "note")}


def seconds(worker: Worker, spec: TrialSpec) -> float:
    """CPU seconds of one run of the trial, all threads."""
    with tempfile.TemporaryDirectory() as folder:
        worker.session.ledger = Ledger(Path(folder))
        began = time.process_time()
        record = worker.run(spec)
        spent = time.process_time() - began
    assert record.failure is None, record.failure
    return spent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=8)
    options = parser.parse_args()
    torch.set_num_threads(1)
    data = {"samples": 800, "mix": {"micro/alpaca": 0.5, "micro/gsm8k": 0.5}}
    spec = spec_of(data=data, train={"learning_rate": 2.0e-3, "batch_size": 8, "micro_batch_size": 8})
    worker = Worker(Ledger(Path(tempfile.gettempdir())), Hub())
    seconds(worker, spec)  # loads everything
    shares = []
    for pair in range(options.pairs):
        silent = mock.patch.multiple(Reporter, running=lambda self: nullcontext(), **SILENT)
        runs = {}
        for published in (True, False) if pair % 2 else (False, True):  # neither always comes first
            with nullcontext() if published else silent:
                runs[published] = seconds(worker, spec)
        shares.append(runs[True] / runs[False] - 1)
        print(f"with {runs[True]:.2f} s, without {runs[False]:.2f} s: {shares[-1]:+.2%}", flush=True)
    print(f"median {statistics.median(shares):+.2%}, standard error {statistics.stdev(shares) / len(shares) ** 0.5:.2%}")


if __name__ == "__main__":
    main()
