"""Joint training: every trial's record is that of a training alone."""

import math

import pytest
import safetensors.torch
import torch

from tests.factories.specs import changed, small_spec
from trials.ledger.record import Ledger
from trials.run.worker import Worker
from trials.spec import TrialSpec
from trials.training import multi_adapter, trainer

EVERY_STEP = trainer.Pace(seconds=0.0, share=math.inf)


@pytest.fixture(scope="module")
def specs() -> list[TrialSpec]:
    spec = small_spec()
    return [
        spec,
        changed(spec, lora={"rank": 2}, data={"samples": 24}, train={"schedule": "cosine", "warmup": 0.2}),
        changed(spec, lora={"rank": 8, "alpha": 4}, train={"learning_rate": 5e-3, "seed": 3}),
    ]


@pytest.fixture(scope="module")
def alone(worker, specs, tmp_path_factory) -> Worker:
    made = Worker(Ledger(tmp_path_factory.mktemp("alone")), worker.session.hub)
    made.session.tasks, made.session._base = worker.session.tasks, worker.session._base
    for one in specs:
        assert made.run(one).state == "complete"
    worker.session._base = made.session._base
    return made


def _numbers(response: str) -> list[float]:
    """Log-likelihoods of choices, rounded to four decimals."""
    return [float(one) for one in response.split()]


def assert_same(ours: Worker, alone: Worker, spec: TrialSpec) -> None:
    one, other = ours.session.ledger.read(spec.key), alone.session.ledger.read(spec.key)
    assert one.state == "complete", one.failure
    for part in ("scores", "rows", "seeds", "base_checksum", "overlap"):
        assert getattr(one, part) == getattr(other, part), part
    assert one.training == pytest.approx(other.training, abs=1e-5)
    assert set(one.seconds) == set(other.seconds) == set(one.memory)
    mine, theirs = ours.session.ledger.documents(spec.key), alone.session.ledger.documents(spec.key)
    assert mine[["doc_hash", "score"]].equals(theirs[["doc_hash", "score"]])
    for told, known in zip(mine.response, theirs.response, strict=True):
        assert told == known or _numbers(told) == pytest.approx(_numbers(known), abs=1e-3)
    folders = [worker.session.ledger.folder(spec.key) for worker in (ours, alone)]
    files = [safetensors.torch.load_file(folder / "adapter/adapter_model.safetensors") for folder in folders]
    assert all(torch.allclose(files[0][name], files[1][name], atol=1e-5) for name in files[1])
    assert len({(folder / "adapter/adapter_config.json").read_text() for folder in folders}) == 1
    assert not (folders[0] / "partial").exists()


def test_joint_records_equal_those_of_single_runs(another, alone, specs):
    together = another()
    baseline = specs[0].baseline()
    records = together.run_many([*specs, baseline, specs[0]])
    assert [record.key for record in records] == [*(one.key for one in specs), baseline.key, specs[0].key]
    assert [record.together for record in records] == [3, 3, 3, 1, 3]
    for one in specs:
        assert_same(together, alone, one)
    assert [record.finished for record in together.run_many(specs)] == [record.finished for record in records[:3]]


class CutOff(BaseException):
    """Ends an attempt like a signal: `except Exception` does not catch it."""


def test_interrupted_members_resume_alone_or_together(another, alone, specs, monkeypatch):
    backward, calls = multi_adapter.Stack.backward, []

    def cut(*arguments):
        calls.append(1)
        if len(calls) == 3:  # the two short ones have done one of two steps
            raise CutOff
        return backward(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(multi_adapter.Stack, "backward", cut)
        first = another(EVERY_STEP)
        with pytest.raises(CutOff):
            first.run_many(specs)
    assert first.run(specs[0]).resumed == [2]
    second = another()
    records = second.run_many(specs)
    assert [record.resumed for record in records] == [[2], [2], [2]]
    assert [record.together for record in records] == [1, 2, 2]
    for one in specs:
        assert_same(second, alone, one)


def test_failing_member_ends_no_other(another, alone, specs, monkeypatch):
    hot = changed(specs[0], train={"seed": 11})
    missing = changed(specs[0], data={"mix": {"micro/alpaca": 0.5, "nowhere": 0.5}})
    update = multi_adapter.Training.update
    monkeypatch.setattr(
        multi_adapter.Training,
        "update",
        lambda self, loss: update(self, math.nan if self.settings.seed == hot.train.seed else loss),
    )
    together = another()
    records = together.run_many([specs[0], hot, missing, specs[1]])
    assert [record.state for record in records] == ["complete", "failed", "failed", "complete"]
    assert (records[1].failure.kind, records[2].failure.kind) == ("NonFiniteLoss", "InputError")
    assert "Traceback" in records[1].failure.traceback
    for one in specs[:2]:
        assert_same(together, alone, one)


def test_oom_halves_the_members_of_a_pass(another, alone, specs, monkeypatch):
    backward, tried = multi_adapter.Stack.backward, []

    def scarce(self, *arguments):
        tried.append(len(self.trainings))
        if len(self.trainings) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return backward(self, *arguments)

    monkeypatch.setattr(multi_adapter.Stack, "backward", scarce)
    together = another()
    assert [record.together for record in together.run_many(specs)] == [2, 2, 1]
    assert tried[:2] == [3, 2]
    for one in specs:
        assert_same(together, alone, one)


def test_member_that_runs_elsewhere_is_left_out(another, alone, specs):
    together = another()
    lease = together.session.ledger.lease(specs[1].key)
    records = together.run_many(specs)
    lease.release()
    assert [record and record.key for record in records] == [specs[0].key, None, specs[2].key]
    for one in (specs[0], specs[2]):
        assert_same(together, alone, one)
