"""What goes wrong in a trial: memory that does not suffice, numbers that are none, a storage that cannot be written."""

import contextlib
import mmap
import os
import re
import subprocess
import warnings
import weakref

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from trials.errors import StorageFailed
from trials.evaluation import evaluate
from trials.ledger.record import Halving, TrialRecord
from trials.models import oom
from trials.run import provenance
from trials.run.worker import Worker
from trials.spec import TrialSpec
from trials.training import trainer

EVERY_STEP = trainer.Pace(seconds=0.0, share=float("inf"))


@pytest.fixture(scope="module")
def little() -> TrialSpec:
    from tests.factories.configs import CONFIG, deep

    parts = deep(CONFIG)
    for role in parts["eval"].values():
        role |= {"documents": 4, "batch_size": 8}
    return TrialSpec.model_validate({name: parts[name] for name in TrialSpec.model_fields if name in CONFIG})


@pytest.fixture(scope="module")
def undisturbed(worker, little) -> TrialRecord:
    return worker.run(little)


@contextlib.contextmanager
def memory_for(worker: Worker, spec: TrialSpec, rows: int, *, training: bool, after: int = 0):
    """While training (or evaluating), the base really asks for a petabyte when it gets more rows than that.

    The first `after` calls with too many rows are let through.
    """
    calls = []

    def hook(module, given):
        if module.training == training and given[0].shape[0] > rows:
            calls.append(given[0].shape[0])
            if len(calls) > after:
                torch.empty(1 << 50, dtype=torch.uint8)

    handle = worker.session.base(spec.base).model.get_input_embeddings().register_forward_pre_hook(hook)
    try:
        yield calls
    finally:
        handle.remove()


def adapter(worker: Worker, record: TrialRecord) -> dict[str, torch.Tensor]:
    return load_file(worker.session.ledger.folder(record.key) / "adapter" / "adapter_model.safetensors")


def test_out_of_memory_in_training_halves_the_micro_batch_and_the_result_is_the_same_up_to_rounding(
    worker, another, little, undisturbed
):
    tight = another()
    with memory_for(tight, little, rows=2, training=True):
        record = tight.run(little)
    assert record.state == "complete", record.failure
    assert record.key == undisturbed.key
    assert record.out_of_memory == [Halving(phase="train", rows=4), Halving(phase="train", rows=2)]
    assert [step for step, _ in record.losses] == [step for step, _ in undisturbed.losses]
    assert [loss for _, loss in record.losses] == pytest.approx([loss for _, loss in undisturbed.losses], rel=1e-4)
    theirs = adapter(worker, undisturbed)
    for name, weight in adapter(tight, record).items():
        torch.testing.assert_close(weight, theirs[name], rtol=1e-2, atol=1e-4)


@pytest.mark.slow
def test_a_training_that_runs_out_of_memory_goes_on_from_its_last_state(another, little, undisturbed):
    tight = another(EVERY_STEP)
    with memory_for(tight, little, rows=4, training=True, after=2) as calls:
        record = tight.run(little)
    assert calls == [8, 8, 8], "the two steps that were done are not done again"
    assert record.out_of_memory == [Halving(phase="train", rows=4)]
    assert record.losses[:2] == undisturbed.losses[:2]
    assert record.losses[2:] == [(step, pytest.approx(loss, rel=1e-4)) for step, loss in undisturbed.losses[2:]]


def test_a_training_that_does_not_fit_with_one_row_fails_in_clear_words(another, little):
    tight = another()
    with memory_for(tight, little, rows=0, training=True):
        record = tight.run(little)
    assert (record.state, record.failure.kind) == ("failed", "OutOfMemory")
    assert record.failure.message.startswith("train: the memory does not suffice for one row at once")
    assert [halving.rows for halving in record.out_of_memory] == [4, 2, 1]


def test_out_of_memory_in_evaluation_halves_its_batch_and_the_scores_are_the_same(worker, another, little):
    plain, tight = worker.run(little.baseline()), another()
    with memory_for(tight, little, rows=2, training=False):
        record = tight.run(little.baseline())
    # of the choice's four endings one row is made
    assert record.out_of_memory == [Halving(phase="evaluate.math", rows=rows) for rows in (4, 2)]
    assert record.scores == plain.scores
    ours, theirs = tight.session.ledger.documents(record.key), worker.session.ledger.documents(plain.key)
    assert ours.drop(columns="response").equals(theirs.drop(columns="response")), "but for log-likelihoods' last digits"


def test_what_a_failed_try_held_is_free_before_the_next_one():
    held = []

    def run(rows):
        assert all(reference() is None for reference in held)
        activations = torch.zeros(1 << 20)
        activations.loop = activations  # only a collection finds it
        held.append(weakref.ref(activations))
        if rows > 1:
            torch.empty(1 << 50, dtype=torch.uint8)
        return rows

    told: list[Halving] = []
    assert oom.within("train", 4, run, lambda rows: rows // 2, told) == 1
    assert len(held) == 3


@pytest.mark.parametrize(
    "allocate",
    [
        lambda: torch.empty(1 << 50, dtype=torch.uint8),
        lambda: np.ones(1 << 50, dtype=np.uint8),
        lambda: bytearray(1 << 50),
        lambda: mmap.mmap(-1, 1 << 50),
    ],
    ids=["torch", "numpy", "python", "system"],
)
def test_every_allocator_that_fails_is_recognised(allocate):
    with pytest.raises((RuntimeError, MemoryError, OSError)) as caught:
        allocate()
    assert oom.is_out_of_memory(caught.value)


def test_other_errors_are_not_taken_for_a_lack_of_memory():
    def run(rows):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    told: list[Halving] = []
    with pytest.raises(RuntimeError, match="shapes"):
        oom.within("train", 4, run, lambda rows: rows // 2, told)
    assert told == []


def test_the_smaller_micro_batch_divides_the_batch():
    assert [trainer.smaller(size, 16) for size in (16, 8, 4, 2)] == [8, 4, 2, 1]
    assert trainer.smaller(9, 9) == 3
    assert trainer.smaller(5, 10) == 2


@pytest.mark.parametrize("step", [2, 4], ids=["in-between", "last"])
def test_a_gradient_that_is_no_number_fails_the_trial_though_its_loss_was_one(another, little, monkeypatch, step):
    beginning, calls = trainer.beginning, []

    def poisoned(model, settings):
        weight = next(iter(trainer.trainable(model).values()))
        weight.register_hook(lambda gradient: calls.append(1) or gradient * (float("inf") if len(calls) == step else 1.0))
        return beginning(model, settings)

    monkeypatch.setattr(trainer, "beginning", poisoned)
    worker = another(EVERY_STEP)
    record = worker.run(little)
    assert record.failure.kind == "NonFiniteLoss"
    assert re.match(f"the gradient's norm was (nan|inf) at step {step};", record.failure.message)
    assert not (worker.session.ledger.folder(little.key) / "partial").exists(), "going on would end there again"


def test_dora_trains_on_the_4bit_base(another, little):
    worker = another()
    record = worker.run(little.model_copy(update={"lora": little.lora.model_copy(update={"use_dora": True})}))
    assert record.state == "complete", record.failure
    magnitudes = [name for name in adapter(worker, record) if "magnitude" in name]
    assert len(magnitudes) == 12, "three projections in each of four layers"
    assert record.key != little.key


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 1 MiB of its own, mounted on this test's ledger."""
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(tmp_path)], check=False, capture_output=True, text=True
    )
    if mounted.returncode:
        warnings.warn(f"no file system can be mounted here: a full disk is not tried ({mounted.stderr.strip()})", stacklevel=1)
        pytest.skip(f"mount: {mounted.stderr.strip()}")
    yield tmp_path
    subprocess.run(["umount", "--lazy", str(tmp_path)], check=True)  # a failed writer may still hold its file


def test_a_disk_that_fills_up_stops_the_trial_and_it_goes_on_when_there_is_room(
    small_disk, another, worker, little, undisturbed, monkeypatch
):
    filler = small_disk / "filler"

    def fill():
        state = os.statvfs(small_disk)
        with filler.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, state.f_bavail * state.f_bsize)

    # what is written next: a training's state, the adapter, a role's documents, the record
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


def test_a_storage_that_cannot_be_written_is_one_line_and_no_failed_trial(small_disk, another, little):
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(StorageFailed, match=f"^{small_disk}.*: Read-only file system; [^\n]*$"):
        another().run(little.baseline())
