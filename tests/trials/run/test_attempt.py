"""An attempt measures its phases, backs off when memory is short, and ends with its lease."""

import contextlib
import mmap
import weakref
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from trials.ledger.record import Halving, Ledger
from trials.models import oom
from trials.run.attempt import Attempt, HeldElsewhere
from trials.run.worker import Worker
from trials.spec import TrialSpec
from trials.training import packing, trainer

EVERY_STEP = trainer.Pace(seconds=0.0, share=float("inf"))


@contextlib.contextmanager
def memory_for(worker: Worker, spec: TrialSpec, rows: int, *, training: bool, after: int = 0):
    """While training (or evaluating), the base allocates a petabyte for more than `rows` rows, after `after` such calls."""
    calls = []

    def hook(module, given):
        packed = packing.active()
        count = len(packed.lengths) if packed else given[0].shape[0]
        if module.training == training and count > rows:
            calls.append(count)
            if len(calls) > after:
                torch.empty(1 << 50, dtype=torch.uint8)

    handle = worker.session.base(spec.base).model.get_input_embeddings().register_forward_pre_hook(hook)
    try:
        yield calls
    finally:
        handle.remove()


def test_oom_in_training_halves_the_micro_batch_and_keeps_the_result(worker, another, little, undisturbed):
    tight = another()
    with memory_for(tight, little, rows=2, training=True):
        record = tight.run(little)
    assert record.state == "complete", record.failure
    assert record.key == undisturbed.key
    assert record.out_of_memory == [Halving(phase="train", rows=4), Halving(phase="train", rows=2)]
    assert [step for step, _ in record.losses] == [step for step, _ in undisturbed.losses]
    assert [loss for _, loss in record.losses] == pytest.approx([loss for _, loss in undisturbed.losses], rel=1e-4)
    ours, theirs = (
        load_file(one.session.ledger.folder(undisturbed.key) / "adapter" / "adapter_model.safetensors")
        for one in (tight, worker)
    )
    for name, weight in ours.items():
        torch.testing.assert_close(weight, theirs[name], rtol=1e-2, atol=1e-4)


@pytest.mark.slow
def test_training_resumes_after_oom_from_its_last_state(another, little, undisturbed):
    tight = another(EVERY_STEP)
    with memory_for(tight, little, rows=4, training=True, after=2) as calls:
        record = tight.run(little)
    assert calls == [8, 8, 8], "completed steps are not repeated"
    assert record.out_of_memory == [Halving(phase="train", rows=4)]
    assert record.losses[:2] == undisturbed.losses[:2]
    assert record.losses[2:] == [(step, pytest.approx(loss, rel=1e-4)) for step, loss in undisturbed.losses[2:]]


def test_training_that_cannot_fit_one_row_fails_with_a_reason(another, little):
    tight = another()
    with memory_for(tight, little, rows=0, training=True):
        record = tight.run(little)
    assert (record.state, record.failure.kind) == ("failed", "OutOfMemory")
    assert record.failure.message.startswith("train: the memory does not suffice for one row at once")
    assert [halving.rows for halving in record.out_of_memory] == [4, 2, 1]


def test_oom_in_evaluation_halves_the_batch_and_keeps_the_scores(worker, another, little):
    plain, tight = worker.run(little.baseline()), another()
    with memory_for(tight, little, rows=2, training=False):
        record = tight.run(little.baseline())
    # a choice's four endings share a row
    assert record.out_of_memory == [Halving(phase="evaluate.math", rows=rows) for rows in (4, 2)]
    assert record.scores == plain.scores
    ours, theirs = tight.session.ledger.documents(record.key), worker.session.ledger.documents(plain.key)
    assert ours.drop(columns="response").equals(theirs.drop(columns="response")), "log-likelihoods differ in the last digits"


@pytest.fixture
def attempt(spec, tmp_path) -> Attempt:
    return Attempt.begin(spec, SimpleNamespace(lost=False), Ledger(tmp_path))


def test_repeated_phase_keeps_its_larger_memory(attempt, monkeypatch):
    peaks = iter([{"host": 5}, {"host": 3}])
    monkeypatch.setattr("trials.run.provenance.peak_memory", lambda: next(peaks))
    for _ in range(2):
        with attempt.phase("evaluate.math"):
            pass
    assert attempt.record.memory == {"evaluate.math": {"host": 5}}


def test_failure_hides_what_the_log_hides(spec, tmp_path, monkeypatch):
    monkeypatch.setenv("SOME_API_KEY", "abcd1234efgh")
    attempt = Attempt.begin(spec, SimpleNamespace(lost=False), Ledger(tmp_path))
    try:
        raise RuntimeError("401 for abcd1234efgh at postgresql://me:hunter2@host")
    except RuntimeError as error:
        attempt.fail(error)
    assert attempt.record.state == "failed"
    assert attempt.record.failure.message == "401 for *** at postgresql://me:***@host"
    assert not {"hunter2", "abcd1234efgh"} & set(attempt.record.failure.traceback.replace("@", " ").split())


def test_attempt_without_its_lease_leaves_no_record(attempt):
    attempt.lease.lost = True
    with pytest.raises(HeldElsewhere):
        attempt.finish()


def test_failed_attempt_frees_its_tensors_before_the_next():
    held = []

    def run(rows):
        assert all(reference() is None for reference in held)
        activations = torch.zeros(1 << 20)
        activations.loop = activations  # only a collection finds it
        held.append(weakref.ref(activations))
        if rows > 1:
            torch.empty(1 << 50, dtype=torch.uint8)
        return rows

    halvings: list[Halving] = []
    assert oom.within("train", 4, run, lambda rows: rows // 2, halvings) == 1
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
def test_every_allocator_is_recognised(allocate):
    with pytest.raises((RuntimeError, MemoryError, OSError)) as caught:
        allocate()
    assert oom.is_out_of_memory(caught.value)


def test_other_errors_are_not_out_of_memory():
    def run(rows):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    halvings: list[Halving] = []
    with pytest.raises(RuntimeError, match="shapes"):
        oom.within("train", 4, run, lambda rows: rows // 2, halvings)
    assert halvings == []
