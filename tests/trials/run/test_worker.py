"""One trial by the real stack: bitsandbytes, PEFT, Trainer, lm-eval, on the embedded base."""

import json
import os
import re
import subprocess
import sys
import warnings
from pathlib import Path

import bitsandbytes as bnb
import pytest
import torch
from safetensors.torch import load_file

from tests.poison import nothing_to_learn
from trials import mix
from trials.adapters import peft_adapter
from trials.errors import StorageFailed
from trials.evaluation import evaluate
from trials.hub.hub import TASK_FOLDERS, Hub
from trials.ledger import storage
from trials.ledger.checkpoint import CheckpointStore
from trials.ledger.record import Ledger, TrialRecord
from trials.models import base
from trials.run import provenance, training_phase
from trials.run import worker as worker_module
from trials.run.worker import Worker
from trials.spec import TrialSpec
from trials.tasks import splits
from trials.training import trainer

ROOT = Path(__file__).parents[3]
EVERY_STEP = trainer.Pace(seconds=0.0, share=float("inf"))


def with_parts(spec: TrialSpec, **sections) -> TrialSpec:
    return TrialSpec.model_validate({**spec.model_dump(mode="json"), **sections})


def test_only_lora_weights_of_the_4bit_base_receive_gradients(module_spec):
    loaded = base.load(module_spec.base, Hub())
    projections = [module for name, module in loaded.model.named_modules() if name.endswith("_proj")]
    assert projections
    assert all(isinstance(module, bnb.nn.Linear4bit) for module in projections)
    state = projections[0].weight.quant_state
    assert (state.quant_type, state.nested, projections[0].weight.dtype) == ("nf4", True, torch.uint8)
    with peft_adapter.adapted(loaded, module_spec.lora, seed=0) as model:
        rows = mix.build(module_spec.data.model_copy(update={"samples": 2}), Hub(), loaded.tokenizer)
        model.train()
        model(**trainer.collate(rows, loaded.tokenizer.pad_token_id)).loss.backward()
        touched = {name for name, weight in model.named_parameters() if weight.grad is not None}
        assert touched
        assert all("lora_" in name for name in touched)
        assert {name.split(".lora_")[0].rpartition(".")[2] for name in touched} == {"q_proj", "k_proj", "v_proj"}


def test_base_is_unchanged_after_a_failed_trial(module_spec):
    loaded = base.load(module_spec.base, Hub())
    ids = torch.tensor([[5, 6, 7]])
    before = loaded.model(input_ids=ids).logits
    with pytest.raises(RuntimeError, match="in mid-training"), peft_adapter.adapted(loaded, module_spec.lora, 0) as model:
        torch.nn.init.ones_(next(weight for name, weight in model.named_parameters() if "lora_B" in name))
        assert not torch.equal(model(input_ids=ids).logits, before)
        raise RuntimeError("in mid-training")
    assert torch.equal(loaded.model(input_ids=ids).logits, before)


def test_record_has_seconds_memory_versions_hardware_seeds_and_rows(record):
    assert record.state == "complete"
    assert {"load", "mix", "train", "evaluate.commonsense", "evaluate.math"} <= set(record.seconds)
    assert set(record.memory) == set(record.seconds)
    assert record.peak_memory["host"] == max(peak["host"] for peak in record.memory.values()) > 10**8
    assert record.versions["torch"].startswith("2.")
    assert record.hardware["threads"] == 1
    assert record.seeds == {"data": 0, "train": 0, "eval.commonsense": 0, "eval.math": 0}
    assert record.rows == {"micro/alpaca": 16, "micro/gsm8k": 16}
    assert record.training["steps"] == 4


def test_scores_are_means_of_the_document_outcomes(record, worker):
    documents = worker.session.ledger.documents(record.key)
    for role, score in record.scores.items():
        mine = documents[documents["role"] == role]
        assert len(mine) == score.n == 12
        assert mine["doc_hash"].nunique() == 12
        assert mine["score"].mean() == pytest.approx(score.value)
        assert mine["doc_id"].is_monotonic_increasing
    assert {"exact_match,strict-match", "exact_match,flexible-extract"} <= set(record.details["math"])


def test_same_spec_gives_identical_metrics(record, module_spec, worker, tmp_path):
    again = Worker(Ledger(tmp_path / "again"), Hub())
    repeated = again.run(module_spec)
    assert record.scores == repeated.scores
    assert record.losses == repeated.losses
    assert worker.session.ledger.documents(record.key).equals(again.session.ledger.documents(record.key))


def test_complete_trial_is_not_run_again(record, worker, module_spec, monkeypatch):
    monkeypatch.setattr(worker.session, "base", lambda *_: pytest.fail("ran again"))
    assert worker.run(module_spec) == record


def test_failed_trial_leaves_a_traceback_and_the_next_one_runs(module_spec, tmp_path, monkeypatch):
    worker = Worker(Ledger(tmp_path), Hub())
    hot = with_parts(module_spec, train={"learning_rate": 1000.0, "batch_size": 8, "micro_batch_size": 8, "max_grad_norm": 1e9})
    monkeypatch.setattr(trainer, "collate", nothing_to_learn(trainer.collate))
    failed = worker.run(hot)
    assert failed.state == "failed"
    assert failed.failure.kind == "NonFiniteLoss"
    assert "Traceback" in failed.failure.traceback
    monkeypatch.undo()
    assert worker.run(module_spec.baseline()).state == "complete"


def test_document_sample_is_seeded_sorted_and_nested():
    sizes = {"a": 100, "b": 50}
    small, large = splits.sample(sizes, 20, seed=3), splits.sample(sizes, 60, seed=3)
    assert sum(map(len, small.values())) == 20
    assert all(set(small[task]) <= set(large[task]) for task in small)
    assert all(chosen == sorted(chosen) for chosen in large.values())
    assert small != splits.sample(sizes, 20, seed=4)
    assert max(large["a"]) > 60, "the first documents only, as limit would give"


@pytest.mark.slow
def test_lm_eval_command_gives_the_same_outcomes(record, worker, module_spec, tmp_path):
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


def test_unknown_projection_is_reported_with_the_known_ones(module_spec, worker):
    record = worker.run(with_parts(module_spec, lora={"target_modules": ["query"]}))
    assert record.failure.kind == "InputError"
    assert "query" in record.failure.message
    assert "q_proj" in record.failure.message


def test_trial_runs_into_a_store(s3, spec, tmp_path):
    torch.set_num_threads(1)
    ledger = Ledger(f"{s3}/runs")
    record = Worker(ledger, Hub()).run(spec)
    assert record.failure is None
    assert ledger.read(spec.key) == record
    assert set(ledger.documents(spec.key)["role"]) == {"commonsense", "math"}
    storage.download(ledger.folder(spec.key) / "adapter", tmp_path / "adapter")
    assert {"adapter_config.json", "adapter_model.safetensors"} <= {path.name for path in (tmp_path / "adapter").iterdir()}
    assert not ledger.held(spec.key)
    assert "partial" not in storage.names(ledger.folder(spec.key))


def adapter(worker: Worker, record: TrialRecord) -> dict[str, torch.Tensor]:
    return load_file(worker.session.ledger.folder(record.key) / "adapter" / "adapter_model.safetensors")


@pytest.mark.parametrize("step", [2, 4], ids=["in-between", "last"])
def test_non_finite_gradient_fails_the_trial(another, little, monkeypatch, step):
    fit, calls = trainer.fit, []

    def poisoned(inputs, start):
        weight = next(iter(trainer.trainable(inputs.model).values()))
        weight.register_hook(lambda gradient: calls.append(1) or gradient * (float("inf") if len(calls) == step else 1.0))
        return fit(inputs, start)

    monkeypatch.setattr(trainer, "fit", poisoned)
    worker = another(EVERY_STEP)
    record = worker.run(little)
    assert record.failure.kind == "NonFiniteLoss"
    assert re.match(f"the gradient's norm was (nan|inf) at step {step};", record.failure.message)
    assert not (worker.session.ledger.folder(little.key) / "partial").exists(), "the checkpoint would lead to the same failure"


def test_dora_trains_on_the_4bit_base(another, little):
    worker = another()
    record = worker.run(little.model_copy(update={"lora": little.lora.model_copy(update={"use_dora": True})}))
    assert record.state == "complete", record.failure
    magnitudes = [name for name in adapter(worker, record) if "magnitude" in name]
    assert len(magnitudes) == 12, "three projections in each of four layers"
    assert record.key != little.key


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 1 MiB, mounted on this test's ledger."""
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(tmp_path)], check=False, capture_output=True, text=True
    )
    if mounted.returncode:
        warnings.warn(f"no file system can be mounted here: a full disk is not tested ({mounted.stderr.strip()})", stacklevel=1)
        pytest.skip(f"mount: {mounted.stderr.strip()}")
    yield tmp_path
    subprocess.run(["umount", "--lazy", str(tmp_path)], check=True)  # a failed writer may still hold its file


def test_full_disk_stops_the_trial_which_resumes_later(small_disk, another, worker, little, undisturbed, monkeypatch):
    filler = small_disk / "filler"

    def fill():
        state = os.statvfs(small_disk)
        with filler.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, state.f_bavail * state.f_bsize)

    # before the write of a training's state, the adapter, a role's documents, the record
    for when in ((trainer, "beginning"), (trainer, "summary"), (evaluate, "evaluate"), (provenance, "hardware")):
        stopped, original = another(EVERY_STEP), getattr(*when)
        with monkeypatch.context() as patch:
            patch.setattr(*when, lambda *arguments, original=original: (fill(), original(*arguments))[1])
            with pytest.raises(StorageFailed) as caught:
                stopped.run(little)
        line = str(caught.value)
        assert re.fullmatch(f"{small_disk}/ledger/{little.key}[^:]*: No space left on device; [^\n]*", line)
        assert stopped.session.ledger.read(little.key) is None, "unfinished, not failed"
        filler.unlink()
    record = another(EVERY_STEP).run(little)
    assert set(record.resumed) == {record.training["steps"]}, "trained once"
    assert (record.losses, record.scores) == (undisturbed.losses, undisturbed.scores)
    ours, theirs = adapter(stopped, record), adapter(worker, undisturbed)
    assert all(torch.equal(weight, theirs[name]) for name, weight in ours.items())


def test_read_only_storage_is_one_line_and_no_failed_trial(small_disk, another, little):
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(StorageFailed, match=f"^{small_disk}.*: Read-only file system; [^\n]*$"):
        another().run(little.baseline())


def test_number_that_is_not_finite_fails_the_trial_with_its_name(another, module_spec, monkeypatch):
    """JSON has no NaN: the record could be written, and not read again."""
    worker, measure = another(), training_phase.drift.measure

    def measured(*args, **named):
        learning, similarity = measure(*args, **named)
        return {name: {**part, "kl": float("nan")} for name, part in learning.items()}, similarity

    monkeypatch.setattr(training_phase.drift, "measure", measured)
    worker.run(module_spec)
    ledger = worker.session.ledger
    record = ledger.read(module_spec.key)
    assert record is not None and record.failure is not None
    assert record.failure.kind == "NonFiniteNumber"
    assert re.match(r"not finite: learning\.\S+\.kl", record.failure.message)
    assert not [path.name for path in ledger.folder(module_spec.key).iterdir() if path.name in ("adapter", "partial")]
    monkeypatch.setattr(worker_module, "evaluate", lambda *_: 1 / 0)
    worker.run(module_spec)
    again = ledger.read(module_spec.key)
    assert again is not None and again.failure.kind == "ZeroDivisionError", "a record of another failure is readable, too"


@pytest.mark.parametrize("fails", [True, False])
def test_adapter_of_a_remote_storage_leaves_no_temporary_folder(another, module_spec, monkeypatch, tmp_path, fails):
    def remote(store):  # as CheckpointStore.local is where the storage is no local folder
        if not store._scratch:
            (tmp_path / "scratch").mkdir()
            store._scratch.append(tmp_path / "scratch")
        return store._scratch[0]

    monkeypatch.setattr(CheckpointStore, "local", property(remote))
    monkeypatch.setattr(worker_module, "evaluate", lambda *_: 1 / 0 if fails else None)
    worker = another()
    assert (worker.run(module_spec).failure is not None) == fails
    assert not (tmp_path / "scratch").exists()
    assert (worker.session.ledger.folder(module_spec.key) / "adapter").is_dir() != fails
