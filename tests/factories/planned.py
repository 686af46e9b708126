"""Worlds for tests: records that a plan is made from."""

from pathlib import Path

from orchestrator.config.model import SweepConfig
from trials.ledger.record import Ledger, Score, TrialRecord
from trials.spec import TrialSpec


def leave(storage: Path, spec: TrialSpec, gpu: str | None = None, **seconds: float) -> None:
    """A record as a worker would leave it; `seconds` by phase, `evaluate` for each role."""
    each = seconds.pop("evaluate")
    phases = seconds | {f"evaluate.{role}": each for role in spec.eval}
    scores = {role: Score(value=0.5, stderr=0.1, n=evaluation.documents or 50) for role, evaluation in spec.eval.items()}
    record = TrialRecord(key=spec.key, state="complete", spec=spec, scores=scores, seconds=phases, hardware={"gpu": gpu})
    Ledger(storage).write(record)


def with_samples(config: SweepConfig, samples: int) -> TrialSpec:
    return config.model_copy(update={"data": config.data.model_copy(update={"samples": samples})}).spec({"lora.rank": 16})
