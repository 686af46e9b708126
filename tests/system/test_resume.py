"""A trial that was cut off goes on, to the record that an undisturbed run would have written, to the bit."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from transformers import Trainer

from tests.factories.checkpoints import flipped
from tests.factories.configs import CONFIG, deep
from trials.evaluation import evaluate
from trials.ledger.record import Ledger, TrialRecord
from trials.run.worker import Worker
from trials.spec import TrialSpec
from trials.training import trainer

ROOT = Path(__file__).parents[2]
EVERY_STEP = trainer.Pace(seconds=0.0, share=float("inf"))
STEPS = 8  # two epochs of 30 rows in batches of 8; the batch of step 8 has 4 rows


@pytest.fixture(scope="module")
def hard() -> TrialSpec:
    """Where state can hide: dropout, accumulation, a schedule, several epochs, a last batch cut short."""
    parts = deep(CONFIG)
    parts["data"]["samples"] = 30
    parts["lora"]["dropout"] = 0.2
    parts["train"] |= {"epochs": 2, "micro_batch_size": 4, "schedule": "cosine", "warmup": 0.3, "weight_decay": 0.1}
    for role in parts["eval"].values():
        role["documents"] = 4
    return TrialSpec.model_validate({name: parts[name] for name in TrialSpec.model_fields if name in CONFIG})


@pytest.fixture(scope="module")
def undisturbed(worker, hard, tmp_path_factory) -> tuple[Ledger, TrialRecord]:
    return run_alone(worker, hard, tmp_path_factory.mktemp("undisturbed"))


def run_alone(worker: Worker, spec: TrialSpec, root: Path) -> tuple[Ledger, TrialRecord]:
    alone = Worker(Ledger(root), worker.session.hub)
    alone.session.tasks, alone.session._base = worker.session.tasks, worker.session._base
    record = alone.run(spec)
    worker.session._base = alone.session._base
    assert record.training["steps"] == STEPS
    return alone.session.ledger, record


def assert_same(ledger: Ledger, record: TrialRecord, undisturbed: tuple[Ledger, TrialRecord]) -> None:
    their_ledger, theirs = undisturbed
    assert record.state == "complete", record.failure
    for part in ("losses", "scores", "details", "training", "rows", "seeds", "base_checksum"):
        assert getattr(record, part) == getattr(theirs, part), part
    ours, other = (one.folder(record.key) for one in (ledger, their_ledger))
    for file in ("adapter/adapter_model.safetensors", "adapter/adapter_config.json"):
        assert (ours / file).read_bytes() == (other / file).read_bytes(), file
    assert ledger.documents(record.key).equals(their_ledger.documents(record.key))
    names = [sorted(path.name for path in one.iterdir() if not path.name.startswith("lease.")) for one in (ours, other)]
    assert names[0] == names[1], "partial/ is gone"


class CutOff(BaseException):
    """Ends an attempt as a signal would: no `except Exception` sees it."""


def cut_off(monkeypatch, where, name: str, call: int) -> None:
    """The `call`-th call of `where.name` does not come back."""
    original, calls = getattr(where, name), []

    def cut(*arguments, **named):
        calls.append(name)
        if len(calls) == call:
            raise CutOff
        return original(*arguments, **named)

    monkeypatch.setattr(where, name, cut)


def attempt_that_is_cut_off(monkeypatch, worker: Worker, spec: TrialSpec, where, name: str, call: int) -> None:
    with monkeypatch.context() as patch:
        cut_off(patch, where, name, call)
        with pytest.raises(CutOff):
            worker.run(spec)


def test_a_training_cut_off_anywhere_again_and_again_ends_in_the_same_record(another, hard, undisturbed, monkeypatch):
    # at once; in the middle of step 3; of step 7; in the last, which is half a batch
    for micro_batches in (1, 6, 10, 3):
        attempt_that_is_cut_off(monkeypatch, another(EVERY_STEP), hard, Trainer, "training_step", micro_batches)
    last = another(EVERY_STEP)
    record = last.run(hard)
    assert record.resumed == [2, 6, 7]
    assert_same(last.session.ledger, record, undisturbed)


@pytest.mark.slow
def test_noise_penalties_and_a_decaying_rate_go_on_where_they_were(worker, another, hard, monkeypatch, tmp_path_factory):
    settings = hard.train.model_copy(update={"schedule": "wsd", "decay": 0.5, "neftune": 5.0, "kl": 0.5, "l2": 0.01})
    spec = hard.model_copy(update={"train": settings})
    undisturbed = run_alone(worker, spec, tmp_path_factory.mktemp("undisturbed"))
    assert {"final_kl", "final_l2"} < undisturbed[1].training.keys()
    for micro_batches in (6, 7):  # in the middle of step 3, which warms up; of step 6, which decays
        attempt_that_is_cut_off(monkeypatch, another(EVERY_STEP), spec, Trainer, "training_step", micro_batches)
    last = another(EVERY_STEP)
    record = last.run(spec)
    assert record.resumed == [2, 5]
    assert_same(last.session.ledger, record, undisturbed)


KILLED = """
import json, os, signal, sys
import torch
from trials.hub.hub import Hub
from trials.ledger import storage
from trials.ledger.record import Ledger
from trials.run.worker import Worker
from trials.spec import TrialSpec
from trials.training.trainer import Pace

torch.set_num_threads(1)
put, puts = storage.replace_file, []

def killed_in_the_middle(path, write):
    if "training" in path.name:
        puts.append(path)
    if len(puts) == 6:  # two files a step: the third step's tensors are written, what points to them is not
        def write(partial):
            partial.write_bytes(b"half a")
            os.kill(os.getpid(), signal.SIGKILL)
    put(path, write)

storage.replace_file = killed_in_the_middle
worker = Worker(Ledger(sys.argv[1]), Hub())
worker.session.pace = Pace(seconds=0.0, share=float("inf"))
worker.run(TrialSpec.model_validate_json(sys.argv[2]))
"""


@pytest.mark.slow
def test_a_process_killed_while_it_saves_leaves_the_state_before_to_the_next_one(another, hard, undisturbed, tmp_path):
    command = [sys.executable, "-c", KILLED, str(tmp_path), hard.model_dump_json()]
    killed = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True, env={**os.environ})
    assert killed.returncode == -signal.SIGKILL, killed.stderr[-2000:]
    second = another(EVERY_STEP)
    record = second.run(hard)
    assert (record.resumed, record.set_aside) == ([2], [])
    assert_same(second.session.ledger, record, undisturbed)


def test_what_was_trained_and_evaluated_before_the_cut_is_not_done_again(another, hard, undisturbed, monkeypatch):
    attempt_that_is_cut_off(monkeypatch, another(EVERY_STEP), hard, evaluate, "evaluate", 2)
    monkeypatch.setattr(Trainer, "training_step", lambda *_: pytest.fail("trained again"))
    second, evaluated, original = another(EVERY_STEP), [], evaluate.evaluate

    def counted(*arguments):
        evaluated.append(arguments[1])
        return original(*arguments)

    monkeypatch.setattr(evaluate, "evaluate", counted)
    record = second.run(hard)
    assert evaluated == ["math"]
    assert set(record.seconds) == {"load", "mix", "train", "drift", "evaluate.commonsense", "evaluate.math"}
    assert_same(second.session.ledger, record, undisturbed)


def test_a_trial_whose_state_is_damaged_begins_again_and_its_record_says_so(another, hard, undisturbed, monkeypatch, recwarn):
    first = another(EVERY_STEP)
    attempt_that_is_cut_off(monkeypatch, first, hard, Trainer, "training_step", 9)
    flipped(first.session.ledger.folder(hard.key) / "partial")
    second = another(EVERY_STEP)
    recwarn.clear()
    record = second.run(hard)
    assert record.resumed == []
    assert record.set_aside == ["training.json: its checksum is wrong"]
    assert not [str(warning.message) for warning in recwarn if "checkpoint" in str(warning.message)]
    assert_same(second.session.ledger, record, undisturbed)


def test_saving_takes_a_small_share_of_the_time_and_never_happens_at_every_step():
    pace = trainer.Pace()
    assert not pace.due(since=pace.seconds / 2, cost=0.0)
    assert pace.due(since=pace.seconds, cost=0.1)
    assert not pace.due(since=60.0, cost=60 * pace.share * 1.1), "a slow storage is written to less often"
    assert pace.due(since=60.0, cost=60 * pace.share * 0.9)
