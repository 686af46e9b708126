"""Learning rate, noise, early stopping and resume of a training."""

import math

import pytest
import torch
from pydantic import ValidationError
from transformers import Trainer

from tests.factories.training import PAD, SETTINGS, changed, fitted, same
from trials.adapters import peft_adapter
from trials.data.batching import collate
from trials.drift import heldout as heldout_drift
from trials.drift import kl as drift
from trials.errors import InputError
from trials.hub.hub import Hub
from trials.models import base, dequantize, oom
from trials.spec import Base, Lora, Train
from trials.training import trainer

NEVER = trainer.Pace(seconds=float("inf"))


def test_evaluation_changes_no_later_training_in_bfloat16(rows, monkeypatch):
    monkeypatch.setattr(dequantize, "SHARE", 0.0)  # keeps bitsandbytes' own layers
    loaded = base.load(Base(model="micro", dtype="bfloat16"), Hub())
    before, _ = fitted(loaded, rows[:16], SETTINGS)
    with torch.no_grad():
        loaded.model(input_ids=torch.tensor([rows[0].input_ids]))
    after, _ = fitted(loaded, rows[:16], SETTINGS)
    assert same(before, after)


# ---- learning rate


def expected(step: int, steps: int, settings: Train) -> float:
    """Share of the learning rate at a step, counted from 0; the formulas are independent of transformers' code."""
    warmup = math.ceil(steps * settings.warmup)
    if step < warmup:
        return step / warmup
    through = (step - warmup) / (steps - warmup)
    match settings.schedule:
        case "constant":
            return 1.0
        case "linear":
            return 1 - through
        case "cosine":
            return 0.5 * (1 + math.cos(math.pi * through))
    decay = round(steps * settings.decay)
    return min(1.0, (steps - step) / decay)


@pytest.mark.parametrize(
    "values",
    [
        {"schedule": "constant", "warmup": 0.1},
        {"schedule": "linear", "warmup": 0.0},
        {"schedule": "cosine", "warmup": 0.25},
        {"schedule": "wsd", "warmup": 0.1, "decay": 0.2},
        {"schedule": "wsd", "warmup": 0.0, "decay": 1.0},
        {"schedule": "wsd", "warmup": 0.5, "decay": 0.5},
    ],
)
def test_learning_rate_follows_the_formula_at_every_step(values):
    settings, steps = changed(**values), 40
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=settings.learning_rate)
    schedule = trainer.schedule_of(settings, optimizer, steps)
    rates = []
    for _ in range(steps):
        rates.append(schedule.get_last_lr()[0] / settings.learning_rate)
        optimizer.step()
        schedule.step()
    assert rates == pytest.approx([expected(step, steps, settings) for step in range(steps)])


def test_training_follows_the_schedule(loaded, rows, monkeypatch):
    seen = []
    original = Trainer.log

    def log(self, logs, *rest):
        seen.append(logs.get("learning_rate"))
        return original(self, logs, *rest)

    monkeypatch.setattr(Trainer, "log", log)
    settings = changed(schedule="wsd", warmup=0.0, decay=0.5, batch_size=4, micro_batch_size=4)
    fitted(loaded, rows, settings)
    assert seen[:8] == pytest.approx([5e-3 * factor for factor in (1, 1, 1, 1, 1, 0.75, 0.5, 0.25)])


@pytest.mark.parametrize("decay", [0.1, 0.2, 0.33, 0.5, 0.9])
@pytest.mark.parametrize("samples", [5, 17, 32, 500, 2_000])
def test_derivable_rows_were_trained_at_the_full_rate(decay, samples):
    settings = changed(schedule="wsd", warmup=0.0, decay=decay)
    steps = math.ceil(samples / settings.batch_size)
    steady = math.floor(samples * (1 - decay))  # TrialSpec's bound of derive.samples
    for step in range(math.ceil(steady / settings.batch_size)):
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
        schedule = trainer.schedule_of(settings, optimizer, steps)
        assert schedule.lr_lambdas[0](step) == 1.0


def test_overlapping_warm_up_and_decay_are_refused():
    with pytest.raises(ValidationError, match="add up to more than 1"):
        changed(schedule="wsd", warmup=0.5, decay=0.6)
    changed(schedule="cosine", warmup=0.5, decay=0.6)


# ---- NEFTune


def embeddings(loaded):
    return loaded.model.get_input_embeddings()


def test_noise_is_on_the_embeddings_in_training_only(loaded, rows, heldout):
    quiet, _ = fitted(loaded, rows, SETTINGS)
    noisy, _ = fitted(loaded, rows, changed(neftune=5.0))
    again, _ = fitted(loaded, rows, changed(neftune=5.0))
    assert not same(quiet, noisy)
    assert noisy.losses[0] != quiet.losses[0], "the very first loss, of the same weights, is of other embeddings"
    assert same(noisy, again)
    assert not embeddings(loaded)._forward_hooks
    assert not hasattr(embeddings(loaded), "neftune_noise_alpha")
    looked, _ = fitted(loaded, rows, changed(neftune=5.0, stop_kl=1e9), heldout=heldout)
    assert same(looked, noisy)
    with peft_adapter.adapted(loaded, Lora(rank=4), 0) as model:
        for name, weight in trainer.trainable(model).items():
            weight.data.copy_(noisy.weights[name])
        quietly = heldout_drift.learning(model, PAD, heldout[: trainer.KL_ROWS], 8)["kl"]
    assert looked.kl[-1] == (4, quietly), "a look in mid-training saw no noise"


def test_noise_has_the_size_of_the_paper(loaded, mixed):
    """Uniform within alpha / sqrt(length * width), arXiv 2310.05914."""
    inputs = collate(mixed[:1], PAD)
    seen = []
    with peft_adapter.adapted(loaded, Lora(rank=4), 0) as model:
        clean = embeddings(loaded)(inputs["input_ids"])
        model.train()
        with trainer.noisy(model, 5.0):
            seen.append(embeddings(loaded)(inputs["input_ids"]) - clean)
            model.eval()
            assert torch.equal(embeddings(loaded)(inputs["input_ids"]), clean)
    bound = 5.0 / math.sqrt(clean.shape[1] * clean.shape[2])
    assert bound * 0.99 < seen[0].abs().max() <= bound * 1.0001


def test_failed_training_leaves_no_noise(loaded, rows, monkeypatch):
    def failing(*_):
        raise RuntimeError("in mid-training")

    monkeypatch.setattr(Trainer, "training_step", failing)
    with pytest.raises(RuntimeError, match="in mid-training"):
        fitted(loaded, rows, changed(neftune=5.0))
    assert not embeddings(loaded)._forward_hooks


def test_memory_of_the_kl_penalty_halves_the_micro_batch(loaded, rows, monkeypatch):
    whole, _ = fitted(loaded, rows, changed(kl=0.5))
    original, told = drift.log_probabilities, []

    def tight(model, inputs):
        if len(inputs["labels"]) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return original(model, inputs)

    monkeypatch.setattr(drift, "log_probabilities", tight)
    halved, _ = oom.within(
        "train", 8, lambda size: fitted(loaded, rows, changed(kl=0.5, micro_batch_size=size)), lambda size: size // 2, told
    )
    assert [one.rows for one in told] == [4, 2]
    assert [loss for _, loss in halved.losses] == pytest.approx([loss for _, loss in whole.losses], rel=1e-4)


# ---- early stopping


def test_threshold_that_is_never_reached_changes_nothing(loaded, rows, heldout):
    lora = Lora(rank=4, dropout=0.2)
    settings = changed(kl=0.1, neftune=1.0, micro_batch_size=4)
    plain, _ = fitted(loaded, rows, settings, lora)
    looked, _ = fitted(loaded, rows, settings.model_copy(update={"stop_kl": 1e9}), lora, heldout=heldout)
    assert same(plain, looked)
    assert plain.kl == []
    assert [step for step, _ in looked.kl] == [1, 2, 3, 4]
    assert all(kl > 0 for _, kl in looked.kl)


def test_training_stops_at_the_first_kl_above_the_threshold(loaded, rows, heldout):
    every, _ = fitted(loaded, rows, changed(batch_size=4, micro_batch_size=4, stop_kl=1e9), heldout=heldout)
    threshold = (every.kl[3][1] + every.kl[4][1]) / 2
    first = next(step for step, kl in every.kl if kl > threshold)
    settings = changed(batch_size=4, micro_batch_size=4, stop_kl=threshold)
    end, _ = fitted(loaded, rows, settings, heldout=heldout)
    assert end.step == first < 8
    assert end.kl == every.kl[:first]
    assert end.losses == every.losses[:first]
    summary = trainer.summary(rows, end, settings)
    assert (summary["stopped_early"], summary["steps"], summary["rows"]) == (1.0, first, 4 * first)
    assert summary["tokens"] == sum(len(row.input_ids) for row in rows[: 4 * first])
    whole = trainer.summary(rows, every, settings)
    assert (whole["stopped_early"], whole["rows"]) == (0.0, 32)


def test_kl_is_measured_about_twenty_times(loaded, mixed, heldout):
    settings = changed(batch_size=1, micro_batch_size=1, stop_kl=1e9)
    end, _ = fitted(loaded, mixed[:45], settings, heldout=heldout[:1])
    assert [step for step, _ in end.kl] == list(range(3, 46, 3))


@pytest.mark.slow
def test_resumed_training_measures_and_stops_at_the_same_steps(loaded, mixed, heldout):
    lora = Lora(rank=4, dropout=0.2)
    settings = changed(batch_size=4, micro_batch_size=2, kl=0.3, l2=0.01, neftune=5.0, schedule="wsd", warmup=0.2, stop_kl=0.03)
    rows, heldout = mixed[:26], heldout[:8]
    whole, states = fitted(loaded, rows, settings, lora, heldout=heldout)
    assert trainer.stops(whole.kl, settings), "it was stopped"
    assert 3 < whole.step < 7
    assert [state.step for state in states] == list(range(1, whole.step + 1))
    for state in states:  # the last one is the stop
        again, _ = fitted(loaded, rows, settings, lora, heldout=heldout, start=state)
        assert same(again, whole)
        assert (again.step, again.kl, again.penalties) == (whole.step, whole.kl, whole.penalties)


def test_stop_kl_without_held_out_rows_is_refused(loaded, rows):
    with pytest.raises(InputError, match="held-out rows"):
        fitted(loaded, rows, changed(stop_kl=0.1))


def test_the_smaller_micro_batch_divides_the_batch():
    assert [trainer.smaller(size, 16) for size in (16, 8, 4, 2)] == [8, 4, 2, 1]
    assert trainer.smaller(9, 9) == 3
    assert trainer.smaller(5, 10) == 2
