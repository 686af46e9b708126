"""Ledgers of worlds whose truth is known: for every trial of an ablation a record as that truth would leave it, untrained.

A world says what a trial's setting does to the model; outcomes are drawn for documents that are the same for all trials.
"""

import json
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from analysis.ablations.answer import Answer
from analysis.results.load import load
from orchestrator.ablations.design import Ablations, Planned
from trials.evaluation import aggregate
from trials.ledger.record import Ledger, TrialRecord
from trials.ledger.storage import write_text
from trials.spec import Evaluation, TrialSpec

CLASSES = ("word", "digit", "operator", "format")


@dataclass
class Model:
    """What a model is like: probabilities, and bits per byte of its gold solutions by kind of token."""

    marker: float = 0.95
    skill: float = 0.7
    commonsense: float = 0.6
    choice: float = 0.7
    bits: dict[str, float] | None = None
    kl: float = 0.0
    gain: float = 0.0


World = Callable[[TrialSpec], Model]


def run(planned: Planned, world: World, storage: Path, documents: int = 200) -> Answer:
    """The answer that the ablation's own rules give to the world's records."""
    config, ledger = planned.config, Ledger(storage)
    trials, specs = [], {}
    for params in planned.points():
        own = config.specs(params)
        base = own[0].baseline()
        specs |= {spec.key: spec for spec in (*own, base)}
        keys = [spec.key for spec in own]
        trials.append({"number": len(trials), "key": keys[0], "keys": keys, "baseline": base.key, "params": params})
    for spec in specs.values():
        ledger.write(*filled(spec, world(spec), documents))
    manifest = {
        "schema": 1,
        "name": config.name,
        "objectives": [one.model_dump() for one in config.search.objectives],
        "space": config.paths(),
        "trials": trials,
        "baselines": [spec.key for spec in specs.values() if spec.is_baseline],
        "documents": "all",
    }
    write_text(storage / config.name / "manifest.json", json.dumps(manifest))
    return answered(planned, storage)


def answered(planned: Planned, storage: Path) -> Answer:
    """From what is in the storage."""
    sweep = load(storage / planned.config.name)
    return planned.answer(sweep)


def planned(name: str, seeds: int | None = None) -> Planned:
    """An ablation's miniature twin, with another number of seeds."""
    (one,) = Ablations().plan(name, "micro")
    if seeds is not None:
        search = one.config.search.model_copy(update={"replicates": seeds})
        one = replace(one, config=one.config.model_copy(update={"search": search}))
    return one


def filled(spec: TrialSpec, model: Model, documents: int) -> tuple[TrialRecord, pd.DataFrame]:
    own = np.random.default_rng(zlib.crc32(spec.key.encode()))
    frames = [_role(role, evaluation, model, documents, own) for role, evaluation in spec.eval.items()]
    record = TrialRecord(key=spec.key, state="complete", spec=spec)
    for frame in frames:
        record.scores[frame["role"][0]], record.details[frame["role"][0]] = aggregate.scores(frame)
    if not spec.is_baseline:
        part = {"tokens": 1000.0, "loss": 2.0 - model.gain, "base_loss": 2.0, "kl": model.kl, "reverse_kl": model.kl}
        record.learning = {"alpaca": part}
    return record, pd.concat(frames, ignore_index=True)


def _role(role: str, evaluation: Evaluation, model: Model, documents: int, own: np.random.Generator) -> pd.DataFrame:
    shared = np.random.default_rng(zlib.crc32(role.encode()))  # the same documents for every trial
    hard, marked = shared.random(documents), shared.random(documents)
    noise = own.normal(0, 0.02, documents)
    frame = pd.DataFrame(
        {"role": role, "task": "t", "doc_id": range(documents), "doc_hash": [f"{role}{n:04}" for n in range(documents)]}
    )
    frame["half"], frame["cluster"], frame["target"], frame["response"] = "report", frame["doc_hash"], "", ""
    if evaluation.marker is None:
        chance = model.choice if role.startswith("choice") else model.commonsense
        frame["score"] = (hard + noise < chance).astype(float)
        frame["margin"] = 0.5 * (chance - hard) + noise
        frame["bits"], frame["bytes"] = 30.0 + 20 * (0.6 - chance) + noise, 30.0
        return frame
    frame["marker"] = (marked + noise < model.marker).astype(float)
    right = (hard + noise < model.skill).astype(float)
    frame["score"] = frame["strict"] = right * frame["marker"]
    frame["flexible"], frame["stopped"] = right, 1.0
    bits = model.bits or {}
    for kind in CLASSES:
        frame[f"bytes.{kind}"] = 20.0
        frame[f"bits.{kind}"] = 20.0 * (0.5 + bits.get(kind, 0.0)) * (0.5 + hard) + noise
    frame["bytes"] = 80.0
    frame["bits"] = sum(frame[f"bits.{kind}"] for kind in CLASSES)
    return frame


def luck(spec: TrialSpec, size: float) -> float:
    """What a seed of this setting happens to do."""
    return 0.0 if spec.is_baseline else float(np.random.default_rng(zlib.crc32(spec.key.encode()) + 1).normal(0, size))


def replay_does_nothing(spec: TrialSpec) -> Model:
    if spec.is_baseline:
        return Model()
    return Model(
        skill=0.2 + luck(spec, 0.001), bits=dict.fromkeys(("word", "digit"), 0.2 + luck(spec, 0.005)), kl=1.0, gain=1.0
    )
