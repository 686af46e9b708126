"""What publishing its progress and its log costs a trial: `python -m tests.benchmarks.progress`, on the miniature base.

The CPU seconds of all calls of the reporter and of its thread, as a share of the trial's. A comparison of trials with and
without it would need hours: they differ by more from run to run.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

from tests.factories.configs import spec_of
from trials.hub.hub import Hub
from trials.ledger.record import Ledger
from trials.run.reporter import Reporter
from trials.run.worker import Worker

CALLS = ("phase", "phase_ended", "training", "step", "documents", "note", "_work")  # none of them calls another one


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=2000)
    options = parser.parse_args()
    torch.set_num_threads(1)
    data = {"samples": options.samples, "mix": {"micro/alpaca": 0.5, "micro/gsm8k": 0.5}}
    spec = spec_of(data=data, train={"learning_rate": 2.0e-3, "batch_size": 8, "micro_batch_size": 8})
    spent, count = dict.fromkeys(CALLS, 0.0), dict.fromkeys(CALLS, 0)

    def timed(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*arguments: Any) -> Any:
            began = time.thread_time()
            try:
                return call(*arguments)
            finally:
                spent[name] += time.thread_time() - began
                count[name] += 1

        return wrapped

    with tempfile.TemporaryDirectory() as folder:
        worker = Worker(Ledger(Path(folder)), Hub())
        worker.run(spec.baseline())  # loads everything
        began, cpu = time.monotonic(), time.process_time()
        with mock.patch.multiple(Reporter, **{name: timed(name, getattr(Reporter, name)) for name in CALLS}):
            record = worker.run(spec)
        cpu, seconds = time.process_time() - cpu, time.monotonic() - began
    assert record.failure is None, record.failure
    for name in CALLS:
        print(f"{name:<14}{count[name]:>8} calls {1000 * spent[name]:>10.1f} ms")
    print(f"the trial: {seconds:.1f} s, {cpu:.1f} s of CPU, {record.training['steps']:.0f} steps")
    print(f"share: {sum(spent.values()) / cpu:.3%}")


if __name__ == "__main__":
    main()
