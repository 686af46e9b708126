"""Records of models that lm-eval evaluated. The key comes from the content, so the same results are one record."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import pandas as pd

from trials.errors import InputError
from trials.evaluation import aggregate
from trials.imported import samples
from trials.imported.folder import Model
from trials.imported.pairing import Measured
from trials.ledger.outcomes import SHARES_SCALE
from trials.ledger.record import IMPORTED, Imported, TrialRecord
from trials.spec import Base, Data, Evaluation, TrialSpec

_SCHEMA = 1  # part of every key. Raise it when the same files would give other numbers.
_OWN = ("question", "cluster")  # equal for all models, so the base alone keeps them


def spec(base: Model, evaluations: Mapping[str, Evaluation]) -> TrialSpec:
    """The base and its evaluation, from lm-eval's files. They say nothing about the training, so it has no rows."""
    arguments = base.newest.arguments
    dtype = base.newest.dtype
    quantized = arguments.get("load_in_4bit", "").lower() == "true"
    return TrialSpec(
        base=Base(
            model=base.name,
            revision=arguments.get("revision"),
            quantization=arguments.get("bnb_4bit_quant_type", "fp4") if quantized else "none",  # type: ignore[arg-type]
            dtype=dtype if dtype in ("bfloat16", "float16", "float32") else "auto",  # type: ignore[arg-type]
        ),
        data=Data(samples=0, mix={"unknown": 1.0}),
        eval=dict(evaluations),
    )


def measured(model: Model, trial: TrialSpec, is_base: bool) -> Measured:
    """The model's record under `trial`, the base's spec, and its documents."""
    tasks = [task for evaluation in trial.eval.values() for task in evaluation.tasks]
    if lacking := [task for task in tasks if task not in model.runs]:
        raise InputError(
            f"{model.folders[0]}: {model.name} has no results of {lacking[0]}, which the base has; evaluate it, or name the "
            "roles to import with --role"
        )
    frames = {role: samples.documents(role, one, model.runs) for role, one in trial.eval.items()}
    runs = {task: model.runs[task] for task in tasks}
    imported = Imported(
        model=model.name,
        arguments=model.newest.arguments,
        dtype=model.newest.dtype,
        tasks={task: run.settings(task) for task, run in runs.items()},
        files={task: str(run.samples(task)) for task, run in runs.items()},
    )
    contents = {run.path: run.content for run in runs.values()}
    newest = model.newest
    versions = {name: newest.content.get(f"{name.replace('-', '_')}_version") for name in ("lm-eval", "transformers")}
    record = TrialRecord(
        key=key(trial, imported.model, frames),
        state="complete",
        spec=trial,
        imported=imported,
        seconds={"evaluate": sum(_seconds(one) for one in contents.values())},
        versions={name: str(version) for name, version in versions.items() if version is not None},
        hardware={"device": str(device)} if (device := newest.setup.get("device")) else {},
    )
    for role, frame in frames.items():
        if (scale := aggregate.observed(frame, samples.scale(role, trial.eval[role], model.runs))) != SHARES_SCALE:
            record.scales[role] = scale
        record.scores[role], record.details[role] = aggregate.scores(frame, scale)
        record.halves[role] = aggregate.halves(frame, scale)
    together = pd.concat(frames.values(), ignore_index=True)
    return Measured(record, together if is_base else together.drop(columns=list(_OWN)))


def key(trial: TrialSpec, model: str, frames: Mapping[str, pd.DataFrame]) -> str:
    """IMPORTED and 16 hexadecimal digits, from the settings, the model's name and all outcomes; not from paths and times."""
    digest = hashlib.sha256(json.dumps([_SCHEMA, trial.canonical(), model], sort_keys=True).encode())
    for role, frame in frames.items():
        digest.update(role.encode())
        rows = frame.drop(columns="line")
        digest.update(rows.reindex(columns=sorted(rows.columns)).to_json(orient="split", double_precision=15).encode())
    return f"{IMPORTED}{digest.hexdigest()[:16]}"


def _seconds(content: Mapping[str, Any]) -> float:
    try:
        seconds = float(content.get("total_evaluation_time_seconds") or 0.0)
    except (TypeError, ValueError):
        return 0.0
    return seconds if 0 <= seconds < 1e9 else 0.0
