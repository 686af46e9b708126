"""One trial by the real stack: bitsandbytes, PEFT, Trainer, lm-eval, on the embedded base."""

import json
import os
import subprocess
import sys
from pathlib import Path

import bitsandbytes as bnb
import pytest
import torch
import yaml

from tests.poison import nothing_to_learn
from trials import mix, preflight
from trials.adapters import lora
from trials.errors import InputError
from trials.evaluation import evaluate
from trials.hub.hub import TASK_FOLDERS, Hub
from trials.ledger.record import Ledger
from trials.models import base
from trials.run import worker as trial
from trials.spec import TrialSpec
from trials.training import trainer

ROOT = Path(__file__).parents[3]


def with_parts(spec: TrialSpec, **sections) -> TrialSpec:
    return TrialSpec.model_validate({**spec.model_dump(mode="json"), **sections})


@pytest.fixture(scope="module")
def record(worker, module_spec):
    return worker.run(module_spec)


@pytest.fixture(scope="module")
def module_spec() -> TrialSpec:
    from tests.factories.configs import CONFIG, deep

    return TrialSpec.model_validate({name: deep(CONFIG)[name] for name in TrialSpec.model_fields if name in CONFIG})


def test_the_4bit_layers_are_bitsandbytes_and_only_lora_weights_receive_gradients(module_spec):
    loaded = base.load(module_spec.base, Hub())
    projections = [module for name, module in loaded.model.named_modules() if name.endswith("_proj")]
    assert projections
    assert all(isinstance(module, bnb.nn.Linear4bit) for module in projections)
    state = projections[0].weight.quant_state
    assert (state.quant_type, state.nested, projections[0].weight.dtype) == ("nf4", True, torch.uint8)
    with lora.adapted(loaded, module_spec.lora, seed=0) as model:
        rows = mix.build(module_spec.data.model_copy(update={"samples": 2}), Hub(), loaded.tokenizer)
        model.train()
        model(**trainer.collate(rows, loaded.tokenizer.pad_token_id)).loss.backward()
        touched = {name for name, weight in model.named_parameters() if weight.grad is not None}
        assert touched
        assert all("lora_" in name for name in touched)
        assert {name.split(".lora_")[0].rpartition(".")[2] for name in touched} == {"q_proj", "k_proj", "v_proj"}


def test_the_base_is_itself_again_after_a_trial_even_one_that_failed(module_spec):
    loaded = base.load(module_spec.base, Hub())
    ids = torch.tensor([[5, 6, 7]])
    before = loaded.model(input_ids=ids).logits
    with pytest.raises(RuntimeError, match="in mid-training"), lora.adapted(loaded, module_spec.lora, 0) as model:
        torch.nn.init.ones_(next(weight for name, weight in model.named_parameters() if "lora_B" in name))
        assert not torch.equal(model(input_ids=ids).logits, before)
        raise RuntimeError("in mid-training")
    assert torch.equal(loaded.model(input_ids=ids).logits, before)


def test_a_record_tells_seconds_memory_versions_hardware_seeds_and_rows(record):
    assert record.state == "complete"
    assert {"load", "mix", "train", "evaluate.commonsense", "evaluate.math"} <= set(record.seconds)
    assert set(record.memory) == set(record.seconds)
    assert record.peak_memory["host"] == max(peak["host"] for peak in record.memory.values()) > 10**8
    assert record.versions["torch"].startswith("2.")
    assert record.hardware["threads"] == 1
    assert record.seeds == {"data": 0, "train": 0, "eval.commonsense": 0, "eval.math": 0}
    assert record.rows == {"micro/alpaca": 16, "micro/gsm8k": 16}
    assert record.training["steps"] == 4


def test_every_document_has_its_outcome_and_the_scores_are_their_means(record, worker):
    documents = worker.session.ledger.documents(record.key)
    for role, score in record.scores.items():
        mine = documents[documents["role"] == role]
        assert len(mine) == score.n == 12
        assert mine["doc_hash"].nunique() == 12
        assert mine["score"].mean() == pytest.approx(score.value)
        assert mine["doc_id"].is_monotonic_increasing
    assert {"exact_match,strict-match", "exact_match,flexible-extract"} <= set(record.details["math"])


def test_the_same_spec_gives_identical_metrics_in_this_process_and_through_the_command(record, module_spec, worker, tmp_path):
    again = trial.Worker(Ledger(tmp_path / "again"), Hub())
    repeated = again.run(module_spec)
    path = tmp_path / "spec.yaml"
    path.write_text(yaml.safe_dump(module_spec.model_dump(mode="json")))
    command = [sys.executable, "-m", "trials", str(path), "--storage", str(tmp_path / "by-command")]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    by_command = Ledger(tmp_path / "by-command").read(module_spec.key)
    assert record.scores == repeated.scores == by_command.scores
    assert record.losses == repeated.losses == by_command.losses
    assert worker.session.ledger.documents(record.key).equals(again.session.ledger.documents(record.key))


def test_a_trial_that_is_done_is_not_run_again(record, worker, module_spec, monkeypatch):
    monkeypatch.setattr(worker.session, "base", lambda *_: pytest.fail("ran again"))
    assert worker.run(module_spec) == record


def test_a_trial_that_fails_is_a_record_with_its_traceback_and_the_next_one_runs(module_spec, tmp_path, monkeypatch):
    worker = trial.Worker(Ledger(tmp_path), Hub())
    hot = with_parts(module_spec, train={"learning_rate": 1000.0, "batch_size": 8, "micro_batch_size": 8, "max_grad_norm": 1e9})
    monkeypatch.setattr(trainer, "collate", nothing_to_learn(trainer.collate))
    failed = worker.run(hot)
    assert failed.state == "failed"
    assert failed.failure.kind == "NonFiniteLoss"
    assert "Traceback" in failed.failure.traceback
    monkeypatch.undo()
    assert worker.run(module_spec.baseline()).state == "complete"


def test_a_sample_of_documents_is_seeded_sorted_and_nested():
    sizes = {"a": 100, "b": 50}
    small, large = evaluate.sample(sizes, 20, seed=3), evaluate.sample(sizes, 60, seed=3)
    assert sum(map(len, small.values())) == 20
    assert all(set(small[task]) <= set(large[task]) for task in small)
    assert all(chosen == sorted(chosen) for chosen in large.values())
    assert small != evaluate.sample(sizes, 20, seed=4)
    assert max(large["a"]) > 60, "the first documents only, as limit would give"


@pytest.mark.slow
def test_lm_evals_own_command_line_scores_the_saved_adapter_the_same_way(record, worker, module_spec, tmp_path):
    """The command gets the base quantised by the same configuration, the adapter, the same tasks, documents and batch size."""
    loaded = base.load(module_spec.base, Hub())
    loaded.model.save_pretrained(tmp_path / "base")
    loaded.tokenizer.save_pretrained(tmp_path / "base")
    ours = worker.session.ledger.documents(record.key)
    samples = {task: sorted(int(i) for i in part["doc_id"]) for task, part in ours.groupby("task")}
    arguments = f"pretrained={tmp_path / 'base'},peft={worker.session.ledger.folder(record.key) / 'adapter'},dtype=float32"
    command = [
        *(sys.executable, "-m", "lm_eval", "run", "--model", "hf", "--model_args", arguments, "--device", "cpu"),
        *("--tasks", ",".join(samples), "--samples", json.dumps(samples), "--batch_size", "32"),
        *("--include_path", str(TASK_FOLDERS[0]), "--log_samples", "--output_path", str(tmp_path / "out")),
    ]
    # the tasks' data sets are folders named as their ids under the working directory, as lm-eval reads them
    hub = TASK_FOLDERS[0].parent / "hub"
    ran = subprocess.run(
        command, cwd=hub, check=False, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    assert ran.returncode == 0, ran.stderr[-2000:]
    theirs = {}
    for path in (tmp_path / "out").rglob("samples_*.jsonl"):
        task = path.name.removeprefix("samples_").rpartition("_")[0]
        for line in path.read_text().splitlines():
            entry = json.loads(line)
            for metric in entry["metrics"]:
                theirs[task, entry["doc_hash"], f"{metric},{entry['filter']}"] = float(entry[metric])
    columns = [name for name in ours.columns if "," in name]
    mine = {
        (row["task"], row["doc_hash"], name): row[name]
        for row in ours.to_dict("records")
        for name in columns
        if row[name] == row[name]
    }
    assert mine == theirs


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"base": {"model": "nobody/nothing", "dtype": "float32"}}, "base.model 'nobody/nothing' is neither"),
        (
            {
                "data": {
                    "samples": 4,
                    "mix": {"x": 1},
                    "sources": {"x": {"dataset": "no/data", "instruction": "", "response": ""}},
                }
            },
            "no/data",
        ),
        ({"eval": {"math": {"task": "gsm9k", "metric": "exact_match"}}}, "lm-eval has no task 'gsm9k'"),
        ({"eval": {"math": {"task": "micro_gsm", "metric": "acc"}}}, "measures exact_match,strict-match"),
        ({"eval": {"math": {"task": "micro_cs", "metric": "acc", "documents": 9_999}}}, "9999 asked for"),
        (
            {
                "data": {
                    "samples": 4,
                    "mix": {"x": 1},
                    "sources": {
                        "x": {
                            "dataset": "micro/gsm8k",
                            "config": "main",
                            "split": "test",
                            "instruction": "{{question}}",
                            "response": "{{answer}}",
                        }
                    },
                }
            },
            "split that task micro_gsm",
        ),
    ],
)
def test_what_cannot_be_had_is_one_clear_line_before_anything_starts(module_spec, worker, change, expected):
    with pytest.raises(InputError) as caught:
        preflight.check(with_parts(module_spec, **change), worker.session.hub, worker.session.tasks)
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_projection_that_the_base_does_not_have_is_named_with_those_it_has(module_spec, worker):
    record = worker.run(with_parts(module_spec, lora={"target_modules": ["query"]}))
    assert record.failure.kind == "InputError"
    assert "query" in record.failure.message
    assert "q_proj" in record.failure.message
