"""What reading a sweep costs: `python -m tests.benchmarks.load` writes 10,000 records as trials leave them and loads them.

The records have three roles of 300, 200 and 200 documents, halves, details and a loss curve. Target: at most 5 s for 10,000 on
two cores. Only record.json is written: loading reads no other file of a trial.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

from analysis.results.load import load
from trials.evaluation.aggregate import halves, scores
from trials.ledger.outcomes import pack
from trials.ledger.record import Ledger, TrialRecord
from trials.spec import TrialSpec

DOCUMENTS = {"commonsense": 300, "math": 200, "knowledge": 200}
SPEC = {
    "base": {"model": "micro", "dtype": "float32"},
    "data": {"samples": 512, "mix": {"micro/alpaca": 0.9, "micro/gsm8k": 0.1}},
    "eval": {role: {"task": f"{role}_task", "metric": "acc"} for role in DOCUMENTS},
}


def answered(random: np.random.Generator, baseline: bool) -> pd.DataFrame:
    """A trial's documents; one in ten flips."""
    frames = []
    for role, n in DOCUMENTS.items():
        known = np.random.default_rng(n).random(n) < 0.7
        right = np.where(random.random(n) < 0.1 * (not baseline), ~known, known).astype(float)
        half = np.where(np.random.default_rng(n + 1).random(n) < 0.5, "report", "search")
        own = pd.DataFrame({"role": role, "task": role, "doc_hash": [f"h{i}" for i in range(n)], "half": half, "score": right})
        if role == "math":
            own = own.assign(strict=right, flexible=right, marker=1.0, stopped=1.0)
            for part in ("", ".word", ".digit", ".operator", ".format"):
                own = own.assign(**{f"bits{part}": random.gamma(9, 5, n), f"bytes{part}": 80.0})
        else:
            own = own.assign(bits=random.gamma(9, 5, n), bytes=60.0)
        frames.append(own.assign(cluster=own["doc_hash"]) if baseline else own)
    return pd.concat(frames, ignore_index=True)


def record(random: np.random.Generator, spec: TrialSpec) -> TrialRecord:
    documents = answered(random, spec.is_baseline)
    roles = {str(role): rows.dropna(axis=1, how="all") for role, rows in documents.groupby("role")}
    own = {role: scores(rows) for role, rows in roles.items()}
    return TrialRecord(
        key=spec.key,
        state="complete",
        spec=spec,
        scores={role: one for role, (one, _) in own.items()},
        details={role: more for role, (_, more) in own.items()},
        halves={role: halves(rows) for role, rows in roles.items()},
        outcomes=pack(documents, spec.is_baseline),
        losses=[(step, float(random.random())) for step in range(64)],
        seconds={"load": 1.0, "train": 5.0, "evaluate.math": 4.0},
    )


def write(root: Path, trials: int) -> Path:
    """A sweep's folder; the outcomes of 100 trials take turns."""
    ledger, random = Ledger(root), np.random.default_rng(0)
    first = TrialSpec.model_validate(SPEC)
    base = record(random, first.baseline())
    bodies = [record(random, first) for _ in range(min(trials, 100))]
    asked = []
    for number, body in enumerate([base, *(bodies[number % 100] for number in range(trials))], -1):
        if number >= 0:
            body.spec = first.model_copy(update={"train": first.train.model_copy(update={"seed": number})})
            body.key = body.spec.key
            params = {"train.learning_rate": float(random.random()), "lora.rank": int(random.integers(1, 64))}
            asked.append({"number": number, "key": body.key, "baseline": base.key, "params": params})
        folder = ledger.folder(body.key)
        folder.mkdir(parents=True)
        (folder / "record.json").write_text(body.model_dump_json(indent=1) + "\n")
    manifest = {
        "schema": 1,
        "name": "many",
        "objectives": [
            {"metric": "commonsense.gain", "direction": "maximize"},
            {"metric": "math.forgetting", "direction": "minimize"},
        ],
        "constraints": ["math.forgetting <= 0.10"],
        "space": ["train.learning_rate", "lora.rank"],
        "trials": asked,
        "documents": "half",
    }
    (root / "many").mkdir()
    (root / "many" / "manifest.json").write_text(json.dumps(manifest))
    return root / "many"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--trials", type=int, default=10_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as root:
        began = time.perf_counter()
        folder = write(Path(root), options.trials)
        print(f"{options.trials} records written in {time.perf_counter() - began:.1f} s")
        for attempt in ("first", "second"):
            began = time.perf_counter()
            sweep = load(folder)
            print(f"{attempt} load: {time.perf_counter() - began:.2f} s, {len(sweep.trials)} trials")


if __name__ == "__main__":
    main()
