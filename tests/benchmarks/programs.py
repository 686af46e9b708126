"""One sweep as three programs: a plain script, a well-tuned one and slimsweep; `make bench`.

`python -m tests.benchmarks.programs micro`, or `... smollm2 --hub-mirror DIR`. A baseline and eight trials (four ranks, two
learning rates) on two workers of one thread each. Prints each program's makespan from its start to its end, its seconds by
phase, and what of slimsweep's outcomes is not the tuned script's, document by document.
"""

import argparse
import itertools
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

ROOT = Path(__file__).parents[2]
RANKS = [4, 8, 16, 32]
SWEEPS: dict[str, dict[str, Any]] = {
    # the quickstart's trial, with all documents of its three tasks: the paper's trial evaluates whole benchmarks
    "micro": {
        "base": {"model": "micro", "dtype": "float32"},
        "data": {"samples": 512, "mix": {"micro/alpaca": 0.9, "micro/gsm8k": 0.1}},
        "lora": {"alpha": 32, "target_modules": ["q_proj", "k_proj", "v_proj"]},
        "train": {"batch_size": 8, "micro_batch_size": 8},
        "eval": {
            "commonsense": {"preset": "micro_swag", "batch_size": 64},
            "math": {"preset": "micro_gsm", "batch_size": 64},
            "knowledge": {"preset": "micro_cs", "batch_size": 64},
        },
        "rates": [2.0e-3, 5.0e-3],
    },
    # a 250th of the paper's trial: 2,000 rows of Alpaca, 10,042 documents of HellaSwag, 1,319 of GSM8K, 200 of MMLU
    "smollm2": {
        "base": {"model": "HuggingFaceTB/SmolLM2-135M-Instruct", "dtype": "float32"},
        "data": {"samples": 8, "mix": {"alpaca": 1.0}, "max_length": 256},
        "lora": {"alpha": 16, "target_modules": ["q_proj", "k_proj", "v_proj"]},
        "train": {"batch_size": 4, "micro_batch_size": 4},
        "eval": {
            "commonsense": {"preset": "hellaswag", "documents": 40, "batch_size": 64},
            "math": {"preset": "gsm8k", "documents": 5, "batch_size": 64},
            "knowledge": {"preset": "mmlu_cs", "documents": 1, "batch_size": 64},
        },
        "rates": [5.0e-4, 2.0e-3],
    },
}


def job_of(sweep: dict[str, Any], mirror: str | None, settings: Sequence[tuple[int, float]], workers: int) -> dict[str, Any]:
    """What the scripts read: a baseline and a trial for each rank and learning rate."""
    from trials import mix
    from trials.data import decontamination
    from trials.hub.hub import Hub
    from trials.models import base
    from trials.spec import TrialSpec
    from trials.tasks.tasks import Tasks

    spec, hub = TrialSpec.model_validate(sweep), Hub(mirror)
    screen = decontamination.Screen(decontamination.documents(Tasks(hub), spec.eval.values()), spec.data.max_overlap)
    tokenizer = base.tokenizer(spec.base, hub)
    rows = mix.build(spec.data, hub, tokenizer, screen)
    heldout = [row for some in mix.heldout(spec.data, hub, tokenizer).values() for row in some]
    steps = math.ceil(len(rows) / spec.train.batch_size)
    shared = {"alpha": spec.lora.alpha, "seed": spec.train.seed, "warmup_steps": math.ceil(steps * spec.train.warmup)}
    trials: list[dict[str, Any]] = [{"name": "baseline", "rank": 0}]
    trials += [{"name": f"{rank}-{rate:g}", "rank": rank, "learning_rate": rate, **shared} for rank, rate in settings]
    return {
        "model": hub.locate(spec.base.model),
        "dtype": spec.base.dtype,
        "double_quantization": spec.base.double_quantization,
        "target_modules": list(spec.lora.target_modules),
        **{"rows": [_inputs(row) for row in rows], "heldout": [_inputs(row) for row in heldout]},
        **{part: getattr(spec.train, part) for part in ("batch_size", "micro_batch_size", "max_grad_norm", "weight_decay")},
        "eval": sweep["eval"],
        "mirror": mirror,
        "threads": 1,
        "workers": workers,
        "trials": trials,
    }


def _inputs(row: Any) -> dict[str, list[int]]:
    return {"input_ids": row.input_ids, "labels": row.labels, "attention_mask": [1] * len(row.labels)}


def jobs(name: str, mirror: str | None) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the scripts read, and slimsweep's config."""
    sweep = {key: value for key, value in SWEEPS[name].items() if key != "rates"}
    rates = SWEEPS[name]["rates"]
    job = job_of(sweep, mirror, list(itertools.product(RANKS, rates)), 2)
    space = {
        "lora.rank": {"type": "categorical", "choices": RANKS},
        "train.learning_rate": {"type": "categorical", "choices": rates},
    }
    search = {
        "sampler": "grid",
        "objectives": [
            {"metric": "commonsense.gain", "direction": "maximize"},
            {"metric": "math.drop", "direction": "minimize"},
        ],
    }
    resources = {"gpus_per_trial": 1, "cpus_per_trial": 1}
    return job, {"name": name, **sweep, "space": space, "search": search, "resources": resources}


def timed(command: list[str]) -> float:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    began = time.perf_counter()
    done = subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed\n{done.stdout[-4000:]}")
    return time.perf_counter() - began


def script(job: dict[str, Any], folder: Path, tuned: bool) -> tuple[float, dict[str, Any]]:
    """Makespan and, by trial, seconds and documents."""
    folder.mkdir()
    path = folder / "job.json"
    path.write_text(json.dumps({**job, "tuned": tuned, "out": str(folder)}))
    seconds = timed([sys.executable, "-m", "tests.benchmarks.script", str(path)])
    return seconds, {trial["name"]: json.loads((folder / f"{trial['name']}.json").read_text()) for trial in job["trials"]}


def slimsweep(config: dict[str, Any], folder: Path, mirror: str | None) -> tuple[float, dict[str, Any]]:
    from trials.ledger.record import Ledger

    folder.mkdir()
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(config))
    command = [sys.executable, "-m", "orchestrator.cli", "run", str(path), "--storage", str(folder / "runs")]
    seconds = timed(command + (["--set", f"hub_mirror={mirror}"] if mirror else []))
    ledger, found = Ledger(folder / "runs"), {}
    for place in (folder / "runs" / "ledger").iterdir():
        record = ledger.read(place.name)
        assert record is not None and record.failure is None, place
        spec = record.spec
        name = "baseline" if spec.is_baseline else f"{spec.lora.rank}-{spec.train.learning_rate:g}"
        documents = ledger.documents(record.key, ["role", "task", "doc_id", "score", "response"])
        found[name] = {"seconds": record.seconds, "documents": documents.to_dict("records")}
    return seconds, found


def parts(seconds: Mapping[str, float]) -> dict[str, float]:
    """A trial's seconds by phase in three parts: what held-out rows tell belongs to the training, `load` is the rest."""
    found = {"load": 0.0, "train": 0.0, "evaluate": 0.0}
    for phase, value in seconds.items():
        part = phase.partition(".")[0].replace("drift", "train")
        found[part if part in found else "load"] += value
    return found


def compare(tuned: dict[str, Any], ours: dict[str, Any]) -> str:
    """What of the outcomes differs, over all trials and documents."""
    documents = texts = scores = 0
    apart = 0.0
    for name in tuned:
        keys = ["role", "task", "doc_id"]
        both = pd.DataFrame(tuned[name]["documents"]).merge(
            pd.DataFrame(ours[name]["documents"]), on=keys, suffixes=("", "_ours")
        )
        assert len(both) == len(tuned[name]["documents"]) == len(ours[name]["documents"]), name
        documents += len(both)
        scores += int((both["score"] != both["score_ours"]).sum())
        for one, other in zip(both["response"], both["response_ours"], strict=True):
            try:
                pairs = zip(map(float, one.split()), map(float, other.split()), strict=True)
                apart = max([apart, *(abs(a - b) for a, b in pairs)])
            except ValueError:  # a text
                texts += one != other
    return (
        f"{documents} documents: {scores} scores and {texts} responses differ; log-likelihoods by {apart:.4f} at most "
        "(of 4 decimals)"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sweep", choices=SWEEPS)
    parser.add_argument("--hub-mirror")
    parser.add_argument("--programs", default="tuned,slimsweep,plain")
    options = parser.parse_args()
    job, config = jobs(options.sweep, options.hub_mirror)
    found: dict[str, tuple[float, dict[str, Any]]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        for program in options.programs.split(","):
            folder = Path(temporary) / program
            if program == "slimsweep":
                found[program] = slimsweep(config, folder, options.hub_mirror)
            else:
                found[program] = script(job, folder, tuned=program == "tuned")
            seconds, trials = found[program]
            each = [parts(one["seconds"]) for one in trials.values()]
            phases = {part: sum(one[part] for one in each) for part in ("load", "train", "evaluate")}
            told = "  ".join(f"{part} {value:.1f} s" for part, value in phases.items())
            print(f"{program:<10} {seconds:8.1f} s  all trials together: {told}", flush=True)
    for program in ("tuned", "plain"):
        if program in found and "slimsweep" in found:
            print(f"{program} / slimsweep: {found[program][0] / found['slimsweep'][0]:.2f}")
    if {"tuned", "slimsweep"} <= found.keys():
        print(compare(found["tuned"][1], found["slimsweep"][1]))


if __name__ == "__main__":
    main()
