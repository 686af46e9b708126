"""What the driver costs a trial: `python -m tests.benchmarks.driver` runs 2,000 trials that do nothing on the real Ray.

Everything but the trial's own work is real: study, sampler, ledger, manifest, events, Ray Tune and its workers. The target is
at most 0.15 s a trial, and a last quarter that takes at most 1.5 times as long as the first.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from orchestrator.cluster import connect, runner
from orchestrator.config.model import SweepConfig
from orchestrator.sweep.controller import SweepController
from orchestrator.sweep.events import Event
from trials.ledger.record import Ledger, Score, TrialRecord
from trials.spec import TrialSpec


class NothingToDo(runner.tune.Trainable):
    """Leaves a record with scores made from the key."""

    def setup(self, config: dict[str, Any], storage: str = "", **_: Any) -> None:
        self.ledger = Ledger(Path(storage))
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        (job,) = new_config["jobs"]
        self.spec = TrialSpec.model_validate_json(job["spec"])
        return True

    def step(self) -> dict[str, Any]:
        key = self.spec.key
        shares = (int(key[:4], 16) / 65535, int(key[4:8], 16) / 65535)
        roles = zip(self.spec.eval, shares, strict=True)
        scores = {role: Score(value=0.2 + 0.6 * share, stderr=0.01, n=1000) for role, share in roles}
        self.ledger.write(TrialRecord(key=key, state="complete", spec=self.spec, scores=scores, seconds={"train": 0.0}))
        return {"ends": ["record"], "reasons": [""], "seconds": 0.0, "done": True}


def config(sampler: str, trials: int) -> SweepConfig:
    return SweepConfig.model_validate(
        {
            "name": "nothing",
            "base": {"model": "micro"},
            "data": {"samples": 8, "mix": {"micro/alpaca": 1.0}},
            "eval": {
                "commonsense": {"task": "micro_swag", "metric": "acc_norm"},
                "math": {"task": "micro_gsm", "metric": "exact_match"},
            },
            "space": {
                "train.learning_rate": {"type": "float", "low": 1e-5, "high": 1e-2, "log": True},
                "lora.rank": {"type": "categorical", "choices": [4, 8, 16, 32]},
            }
            if sampler != "grid"
            else {"train.seed": {"type": "int", "low": 0, "high": trials - 1}},
            "search": {
                "sampler": sampler,
                "trials": trials,
                "objectives": [
                    {"metric": "commonsense.gain", "direction": "maximize"},
                    {"metric": "math.forgetting", "direction": "minimize"},
                ],
                "constraints": ["math.forgetting <= 0.5"],
            },
        }
    )


def measure(sampler: str, trials: int) -> list[float]:
    """Seconds a trial, quarter by quarter."""
    ends: list[float] = []

    def observe(event: Event) -> None:
        if event.event == "trial_finished":
            ends.append(time.perf_counter())

    with tempfile.TemporaryDirectory(prefix="slimsweep-benchmark-") as storage:
        swept = config(sampler, trials)
        sweep = SweepController.open(swept, Path(storage), observe)
        with connect.connected(None, swept.resources, {}):
            slots = runner.Slots(swept.resources)
            with sweep.going():
                runner.run(sweep, storage, None, slots, actor=NothingToDo)
    quarter = len(ends) // 4
    return [(ends[(i + 1) * quarter - 1] - ends[i * quarter]) / (quarter - 1) for i in range(4)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=2000)
    parser.add_argument("--sampler", default="grid")
    options = parser.parse_args()
    quarters = measure(options.sampler, options.trials)
    mean, growth = sum(quarters) / 4, quarters[3] / quarters[0]
    print(
        json.dumps({"sampler": options.sampler, "trials": options.trials, "seconds_a_trial": [round(q, 4) for q in quarters]})
    )
    print(f"{mean:.3f} s a trial (at most 0.15), last quarter {growth:.2f} times the first (at most 1.5)")
    return not (mean <= 0.15 and growth <= 1.5)


if __name__ == "__main__":
    sys.exit(main())
