"""Each preset's numbers are those of lm-eval's own command line, document by document, on the real data with a real model.

So are those under a chat template, also with micro, which needs no mirror. `make parity` runs it.
HUB_MIRROR names the mirror folder, laid out as org/name, with HuggingFaceTB/SmolLM2-135M-Instruct in it.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tests.factories.bases import MICRO
from tests.factories.chat_bases import chat_micro
from trials.evaluation import evaluate
from trials.evaluation.documents import response
from trials.hub.hub import TASK_FOLDERS, Hub
from trials.models import base
from trials.spec import Base, Evaluation
from trials.tasks.tasks import Tasks

MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"
DOCUMENTS = 50

APART = 1e-4
"""Of a log-likelihood, in nats: what equality with the command line means."""
_UNPACKED = """
import bitsandbytes.nn.modules
bitsandbytes.nn.modules.has_avx512bf16 = lambda: False
from lm_eval.__main__ import cli_evaluate
cli_evaluate()
"""
"""The command line without bitsandbytes' packing for CPUs with units for bfloat16, which computes 4-bit layers in bfloat16
whatever type is requested. The program never packs, so both compute in the type of the test."""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def mirror() -> Path:
    named = os.environ.get("HUB_MIRROR")
    if not named:
        pytest.skip("HUB_MIRROR names no mirror folder: parity with stock lm-eval on the real data is NOT checked")
    folder = Path(named).expanduser().resolve()
    wanted = [MODEL, "Rowan/hellaswag", "openai/gsm8k", "cais/mmlu"]
    if lacking := [name for name in wanted if not (folder / name).is_dir()]:
        pytest.skip(f"{folder} lacks {', '.join(lacking)}: parity with stock lm-eval on the real data is NOT checked")
    return folder


def stock(documents: pd.DataFrame, pretrained: Path, mirror: Path, folder: Path, *options: str) -> dict[tuple[str, str], Any]:
    """(task, doc_hash) -> what the command line logged of the document: response, and every "metric,filter".

    It runs in the mirror, where data sets lie in folders named as their ids; no option names filters or metrics.
    """
    samples = {str(task): sorted(int(i) for i in part["doc_id"]) for task, part in documents.groupby("task")}
    command = [
        *(sys.executable, "-c", _UNPACKED, "run", "--model", "hf", "--model_args", f"pretrained={pretrained},dtype=float32"),
        *("--device", "cpu", "--tasks", ",".join(samples), "--samples", json.dumps(samples)),
        *("--log_samples", "--output_path", str(folder / "out"), *options),
    ]
    environment = {**os.environ, "HF_DATASETS_CACHE": str(folder / "cache"), "HF_HUB_OFFLINE": "1"}
    ran = subprocess.run(command, cwd=mirror, check=False, capture_output=True, text=True, env=environment)
    assert ran.returncode == 0, ran.stderr[-2000:]
    found: dict[tuple[str, str], Any] = {}
    for path in (folder / "out").rglob("samples_*.jsonl"):
        task = path.name.removeprefix("samples_").rpartition("_")[0]
        for line in path.read_text().splitlines():
            entry = json.loads(line)
            row = found.setdefault((task, entry["doc_hash"]), {})
            row["response"] = response(entry["resps"])
            row |= {f"{metric},{entry['filter']}": float(entry[metric]) for metric in entry["metrics"]}
    return found


def greatest_difference(pairs: list[tuple[str, str]]) -> float:
    """Of the log-likelihoods in two responses to a multiple choice, over all documents; responses hold four decimals."""
    return round(
        max(abs(float(a) - float(b)) for one, other in pairs for a, b in zip(one.split(), other.split(), strict=True)), 4
    )


@pytest.mark.parametrize(
    ("preset", "quantization", "batch_size"),
    [("hellaswag", "none", 16), ("hellaswag", "nf4", 16), ("mmlu_cs", "none", 10), ("gsm8k", "none", 10)],
)
def test_a_preset_gives_the_outcomes_of_lm_evals_own_command_line(preset, quantization, batch_size, mirror, tmp_path, capsys):
    hub = Hub(mirror)
    loaded = base.load(Base(model=MODEL, quantization=quantization, dtype="float32"), hub)
    fields = {"preset": preset, "documents": DOCUMENTS, "fewshot": "stock", "batch_size": batch_size}
    evaluation = Evaluation.model_validate(fields)
    began = time.perf_counter()
    ours = evaluate.evaluate(
        evaluate.make_engine(evaluation.engine, loaded.model, loaded.tokenizer, batch_size), "role", evaluation, Tasks(hub)
    )
    here = time.perf_counter() - began
    pretrained = mirror / MODEL
    if quantization != "none":  # the command line reads the quantised weights with their configuration
        pretrained = tmp_path / "base"
        loaded.model.save_pretrained(pretrained)
        loaded.tokenizer.save_pretrained(pretrained)
    began = time.perf_counter()
    theirs = stock(ours, pretrained, mirror, tmp_path, "--batch_size", str(batch_size))
    there = time.perf_counter() - began
    assert len(ours) == DOCUMENTS
    with capsys.disabled():
        print(f"\n{preset}, {quantization}: {here:.0f} s here, {there:.0f} s by the command line", end="")
        compare(ours, theirs)


def compare(ours: pd.DataFrame, theirs: dict[tuple[str, str], Any]) -> None:
    """Asserts that both have the same outcomes, and prints their mean and the difference of their log-likelihoods."""
    columns = [name for name in ours.columns if "," in name]
    mine = {
        (row["task"], row["doc_hash"]): {name: row[name] for name in ["response", *columns] if row[name] == row[name]}
        for row in ours.to_dict("records")
    }
    generated = "margin" not in ours
    pairs = [(row["response"], theirs[place]["response"]) for place, row in mine.items()]
    print(f", {len(pairs)} documents, mean {ours['score'].mean():.2f}", end="")
    print("" if generated else f", log-likelihoods apart by at most {greatest_difference(pairs):g}")
    if not generated:
        assert greatest_difference(pairs) <= APART
        for outcomes in (mine, theirs):
            for row in outcomes.values():
                del row["response"]
    assert mine == theirs


CHAT = {"chat_template": True, "fewshot_as_multiturn": True, "system": "Answer briefly.", "shots": 2}
FLAGS = (
    "--apply_chat_template",
    "--fewshot_as_multiturn",
    "true",
    "--system_instruction",
    "Answer briefly.",
    "--num_fewshot",
    "2",
)


@pytest.mark.parametrize("preset", ["gsm8k", "hellaswag"])
def test_chat_outcomes_are_those_of_the_command_line(preset, mirror, tmp_path, capsys):
    loaded = base.load(Base(model=MODEL, quantization="none", dtype="float32"), Hub(mirror))
    evaluation = Evaluation.model_validate({"preset": preset, "documents": 24, "fewshot": "stock", **CHAT})
    engine = evaluate.make_engine(evaluation.engine, loaded.model, loaded.tokenizer, 8)
    ours = evaluate.evaluate(engine, "role", evaluation, Tasks(Hub(mirror)))
    theirs = stock(ours, mirror / MODEL, mirror, tmp_path, "--batch_size", "8", *FLAGS)
    with capsys.disabled():
        print(f"\n{preset} in the chat template", end="")
        compare(ours, theirs)


@pytest.mark.parametrize("preset", ["micro_gsm", "micro_swag"])
def test_chat_outcomes_of_micro_are_those_of_the_command_line(preset, tmp_path):
    folder = chat_micro(tmp_path)
    loaded = base.load(Base(model=str(folder), quantization="none", dtype="float32"), Hub())
    evaluation = Evaluation.model_validate({"preset": preset, "documents": 24, **CHAT, "fewshot": "stock"})
    engine = evaluate.make_engine(evaluation.engine, loaded.model, loaded.tokenizer, 8)
    ours = evaluate.evaluate(engine, "role", evaluation, Tasks(Hub()))
    bundled = ("--include_path", str(TASK_FOLDERS[0]))
    compare(ours, stock(ours, folder, MICRO.parent, tmp_path, "--batch_size", "8", *FLAGS, *bundled))
