"""Own tasks give the numbers of lm-eval itself, document by document, and travel to a cluster."""

import json
import os
import subprocess
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import lm_eval
import pytest
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

from tests.factories.bases import MICRO
from tests.factories.configs import CONFIG, deep
from tests.factories.own_tasks import CHOICES, DISTANCE, NOTES, SHOP, SUMS, role, shop
from tests.factories.ray_head import AUTHENTICATION, head
from trials.evaluation import aggregate, evaluate
from trials.evaluation.documents import response
from trials.evaluation.engine.fast_engine import FastEngine
from trials.hub.hub import Hub
from trials.ledger.record import Ledger
from trials.models import base
from trials.spec import Base, Evaluation
from trials.tasks.tasks import Tasks

ROOT = Path(__file__).parents[2]
ROLES = {
    "include": SUMS,
    "group": CHOICES,
    "python metric": {**DISTANCE, "metric": "close"},
    "lower is better": DISTANCE,
    "perplexity": NOTES,
    "bits": {**NOTES, "metric": "bits_per_byte"},
    "forecast": {"task": "shop_tools", "metric": "brier_score"},
}
APART = Decimal("1e-4")  # nats: what equality with lm-eval means; as a float, 43.7856 - 43.7855 is more


@pytest.mark.parametrize(
    "name", ["_sums.yaml", "sums.yaml", "distance.yaml", "metrics.py", "tools.yaml", "choices.yaml", "notes.yaml"]
)
def test_page_shows_the_folder_that_is_tried(name):
    assert f"\n{(SHOP / name).read_text().rstrip()}\n```" in (ROOT / "docs" / "tasks.md").read_text()


@pytest.fixture(scope="module")
def micro():
    return base.load(Base(model="micro", quantization="none", dtype="float32"), Hub())


def ours(micro, evaluation: Evaluation):
    return evaluate.evaluate(FastEngine(micro.model, micro.tokenizer, 8), "own", evaluation, Tasks(Hub()))


def assert_equal(documents, samples: dict[str, list[dict[str, Any]]], evaluation: Evaluation) -> None:
    """Responses, and the metric where lm-eval logs a number of a document, are those of lm-eval's samples."""
    known = {(task, entry["doc_hash"], entry["filter"]): entry for task, some in samples.items() for entry in some}
    assert len(documents) == len({key[:2] for key in known})
    for row in documents.itertuples():
        entry = known[row.task, row.doc_hash, evaluation.filter]
        told, found = response(entry["resps"]), row.response
        if "generate" in entry.get("arguments", {}) or not told.replace(".", "").replace("-", "").replace(" ", "").isdecimal():
            assert found == told
        else:
            pairs = zip(found.split(), told.split(), strict=True)
            assert all(abs(Decimal(mine) - Decimal(theirs)) <= APART for mine, theirs in pairs)
        if isinstance(entry[evaluation.metric], int | float):
            assert row.score == pytest.approx(entry[evaluation.metric])


@pytest.mark.parametrize("name", ["group", "lower is better", "perplexity", "bits", "forecast"])
def test_documents_and_score_are_those_of_simple_evaluate(micro, name, monkeypatch):
    monkeypatch.chdir(SHOP)  # lm-eval searches relative data files there
    evaluation = role(ROLES[name])
    documents = ours(micro, evaluation)
    found = lm_eval.simple_evaluate(
        model=HFLM(pretrained=micro.model, tokenizer=micro.tokenizer, batch_size=1),
        tasks=[evaluation.task],
        task_manager=TaskManager(include_path=str(SHOP), include_defaults=False),
        bootstrap_iters=0,
    )
    assert_equal(documents, found["samples"], evaluation)
    own = aggregate.of_role(documents, evaluate.scale(evaluation, Tasks(Hub())))
    reported = found.get("groups", {}).get(evaluation.task) or found["results"][evaluation.task]
    assert own.value == pytest.approx(reported[f"{evaluation.metric},{evaluation.filter}"], rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", ROLES)
def test_documents_are_those_of_lm_evals_command_line(micro, name, tmp_path):
    evaluation = role(ROLES[name], shop(tmp_path))
    samples = command_line(evaluation, MICRO, tmp_path / "shop", tmp_path)
    assert_equal(ours(micro, evaluation), samples, evaluation)


def command_line(evaluation: Evaluation, model: Path, folder: Path, scratch: Path, cwd: Path | None = None) -> dict[str, Any]:
    """By task, the samples that lm-eval's own command logs. It runs in the task folder, where relative data files lie."""
    command = [
        *(sys.executable, "-m", "lm_eval", "run", "--model", "hf", "--model_args", f"pretrained={model},dtype=float32"),
        *("--device", "cpu", "--batch_size", "1", "--tasks", str(evaluation.task), "--include_path", str(folder)),
        *("--log_samples", "--output_path", str(scratch / "out")),
    ]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_DATASETS_CACHE": str(scratch / "cache")}
    ran = subprocess.run(command, cwd=cwd or folder, check=False, capture_output=True, text=True, env=environment)
    assert ran.returncode == 0, ran.stderr[-2000:]
    found: dict[str, Any] = {}
    for path in (scratch / "out").rglob("samples_*.jsonl"):
        found[path.name.removeprefix("samples_").rpartition("_")[0]] = [
            json.loads(line) for line in path.read_text().splitlines()
        ]
    return found


@pytest.mark.slow
def test_real_documents_of_a_folder_are_those_of_lm_evals_command_line(micro, tmp_path):
    hub = ROOT.parent / "shared" / "hub"
    if not (rows := sorted(hub.glob("openai/gsm8k/main/test-*.parquet"))):
        pytest.skip(f"{hub} has no openai/gsm8k: parity of own tasks on real documents is NOT checked")
    folder = tmp_path / "tasks"
    folder.mkdir()
    (folder / "real.yaml").write_text(
        f"task: real\ndataset_path: parquet\ndataset_kwargs: {{data_files: {{test: {rows[0]}}}}}\n"
        "test_split: test\noutput_type: multiple_choice\ndoc_to_text: 'Question: {{question}}\nAnswer:'\n"
        "doc_to_choice: [' 1', ' 2']\ndoc_to_target: 0\nmetric_list: [{metric: acc}]\n"
        "process_docs: !function own.first\n"
    )
    (folder / "own.py").write_text("def first(rows):\n    return rows.select(range(40))\n")
    evaluation = role({"task": "real", "metric": "acc", "trust_code": True}, folder)
    assert_equal(ours(micro, evaluation), command_line(evaluation, MICRO, folder, tmp_path), evaluation)


@pytest.mark.slow
@pytest.mark.parametrize("way", ["submit", "client", "address"])
def test_task_folder_travels_to_a_cluster(way, write, tmp_path):
    parts = deep(CONFIG)
    parts["eval"]["near"] = {**DISTANCE, "include": str(shop(tmp_path)), "documents": 6}
    config = write(parts)
    with head(tmp_path) as ray:
        name, address = {"submit": ("submit", ray.jobs), "client": ("run", ray.client), "address": ("run", ray.address)}[way]
        command = [sys.executable, "-u", "-m", "orchestrator.cli", name, str(config), "--address", address]
        process = subprocess.Popen(
            [*command, "--storage", str(tmp_path / "runs")],
            cwd=ROOT,
            env={**os.environ, **AUTHENTICATION, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        lines = []
        for line in process.stdout:
            lines.append(line)
            # the driver on the cluster, or its workers, have the copy alone from here on
            sent = {"submit": "job raysubmit", "client": "checking the model", "address": "to run (2 trials"}[way]
            if sent in line and (tmp_path / "shop").exists():
                (tmp_path / "shop").rename(tmp_path / "gone")
        assert process.wait() == 0, "".join(lines)
        assert (tmp_path / "gone").exists()
    records = [Ledger(tmp_path / "runs").complete(key) for key in Ledger(tmp_path / "runs")]
    assert len(records) == 3
    assert all(record.scores["near"].n == 6 for record in records)
