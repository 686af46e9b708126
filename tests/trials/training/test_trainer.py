"""What is minimised, at which learning rate, and when a training ends."""

import json
import math

import pytest
import safetensors.torch
import torch
from pydantic import ValidationError
from transformers import Trainer

from tests.factories.configs import CONFIG, deep
from tests.factories.training import PAD, SETTINGS
from trials.adapters import lora as adapter
from trials.adapters.low_rank import factors
from trials.data.batching import collate
from trials.drift import kl as drift
from trials.errors import InputError
from trials.hub.hub import Hub
from trials.ledger.checkpoint import serialized
from trials.mix import Example
from trials.models import base, dequantize, oom
from trials.spec import Base, Lora, Train, TrialSpec
from trials.template import IGNORED
from trials.training import loss as objective
from trials.training import trainer

NEVER = trainer.Pace(seconds=float("inf"))


@pytest.fixture
def heldout(mixed) -> list[Example]:
    return mixed[32:]


def fitted(loaded, rows, settings: Train, lora: Lora | None = None, **more) -> tuple[trainer.State, list[trainer.State]]:
    """The end of a training and the states after every step, as they are kept."""
    states: list[trainer.State] = []
    with adapter.adapted(loaded, lora or Lora(rank=4), settings.seed) as model:
        start = more.pop("start", None) or trainer.beginning(model, settings)
        every_step = trainer.Pace(0.0, math.inf)
        inputs = trainer.TrainingInputs(
            model, PAD, rows, settings, lambda state: states.append(kept(state)), every_step, **more
        )
        end = trainer.fit(inputs, start)
        return kept(end), states


def kept(state: trainer.State) -> trainer.State:
    values, tensors = state.packed()
    return trainer.State.unpacked(json.loads(json.dumps(values)), safetensors.torch.load(serialized(tensors)))


def changed(**values) -> Train:
    return Train.model_validate({**SETTINGS.model_dump(), **values})


def same(one: trainer.State, other: trainer.State) -> bool:
    return one.losses == other.losses and all(torch.equal(one.weights[name], other.weights[name]) for name in one.weights)


def test_an_evaluation_changes_no_later_training_in_bfloat16(rows, monkeypatch):
    monkeypatch.setattr(dequantize, "SHARE", 0.0)  # the layers are those of bitsandbytes
    loaded = base.load(Base(model="micro", dtype="bfloat16"), Hub())
    before, _ = fitted(loaded, rows[:16], SETTINGS)
    with torch.no_grad():
        loaded.model(input_ids=torch.tensor([rows[0].input_ids]))
    after, _ = fitted(loaded, rows[:16], SETTINGS)
    assert same(before, after)


# ---- the learning rate


def expected(step: int, steps: int, settings: Train) -> float:
    """Share of the learning rate at a step, which counts from 0; written down again, independent of transformers."""
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
def test_the_learning_rate_is_that_of_the_formula_at_every_step(values):
    settings, steps = changed(**values), 40
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=settings.learning_rate)
    schedule = trainer.schedule_of(settings, optimizer, steps)
    rates = []
    for _ in range(steps):
        rates.append(schedule.get_last_lr()[0] / settings.learning_rate)
        optimizer.step()
        schedule.step()
    assert rates == pytest.approx([expected(step, steps, settings) for step in range(steps)])


def test_the_training_itself_follows_the_schedule(loaded, rows, monkeypatch):
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
def test_rows_that_derive_may_stop_at_were_all_trained_at_the_full_rate(decay, samples):
    settings = changed(schedule="wsd", warmup=0.0, decay=decay)
    steps = math.ceil(samples / settings.batch_size)
    steady = math.floor(samples * (1 - decay))  # as TrialSpec bounds derive.samples
    for step in range(math.ceil(steady / settings.batch_size)):
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
        schedule = trainer.schedule_of(settings, optimizer, steps)
        assert schedule.lr_lambdas[0](step) == 1.0


def test_warm_up_and_decay_that_do_not_fit_are_refused():
    with pytest.raises(ValidationError, match="add up to more than 1"):
        changed(schedule="wsd", warmup=0.5, decay=0.6)
    changed(schedule="cosine", warmup=0.5, decay=0.6)


# ---- NEFTune


def embeddings(loaded):
    return loaded.model.get_input_embeddings()


def test_noise_is_on_the_embeddings_in_training_alone_and_gone_afterwards(loaded, rows, heldout):
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
    with adapter.adapted(loaded, Lora(rank=4), 0) as model:
        for name, weight in trainer.trainable(model).items():
            weight.data.copy_(noisy.weights[name])
        quietly = drift.measure(model, PAD, {"x": heldout[: trainer.KL_ROWS]}, 8)["x"]["kl"]
    assert looked.kl[-1] == (4, quietly), "a look in mid-training saw no noise"


def test_the_noise_has_the_size_that_the_paper_gives(loaded, mixed):
    """Uniform within alpha / sqrt(length * width), arXiv 2310.05914."""
    inputs = collate(mixed[:1], PAD)
    seen = []
    with adapter.adapted(loaded, Lora(rank=4), 0) as model:
        clean = embeddings(loaded)(inputs["input_ids"])
        model.train()
        with trainer.noisy(model, 5.0):
            seen.append(embeddings(loaded)(inputs["input_ids"]) - clean)
            model.eval()
            assert torch.equal(embeddings(loaded)(inputs["input_ids"]), clean)
    bound = 5.0 / math.sqrt(clean.shape[1] * clean.shape[2])
    assert bound * 0.99 < seen[0].abs().max() <= bound * 1.0001


def test_a_training_that_fails_leaves_no_noise_behind(loaded, rows, monkeypatch):
    def failing(*_):
        raise RuntimeError("in mid-training")

    monkeypatch.setattr(Trainer, "training_step", failing)
    with pytest.raises(RuntimeError, match="in mid-training"):
        fitted(loaded, rows, changed(neftune=5.0))
    assert not embeddings(loaded)._forward_hooks


# ---- penalties


def test_without_penalties_the_adapter_is_the_trainers_to_the_bit_and_the_head_sees_counted_tokens_alone(
    loaded, rows, monkeypatch
):
    seen: list[int] = []
    head = loaded.model.get_output_embeddings()
    hook = head.register_forward_hook(lambda _, given, out: seen.append(given[0].shape[:-1].numel()))
    ours, _ = fitted(loaded, rows, SETTINGS, Lora(rank=4, dropout=0.2))
    hook.remove()
    assert sum(seen) == sum(label != IGNORED for row in rows for label in row.labels[1:])
    monkeypatch.delattr(objective.Regularised, "compute_loss")
    theirs, _ = fitted(loaded, rows, SETTINGS, Lora(rank=4, dropout=0.2))
    assert all(torch.equal(weight, theirs.weights[name]) for name, weight in ours.weights.items())
    assert [loss for _, loss in ours.losses] == pytest.approx([loss for _, loss in theirs.losses], rel=1e-6)
    assert ours.penalties == {}


PENALTIES = [{"kl": 0.5}, {"l2": 0.02}, {"kl": 0.5, "l2": 0.02}]


@pytest.mark.parametrize("values", PENALTIES, ids=str)
def test_how_a_batch_is_cut_into_micro_batches_moves_the_result_by_rounding_alone(loaded, rows, values):
    whole, _ = fitted(loaded, rows[:30], changed(**values))
    plain, _ = fitted(loaded, rows[:30], SETTINGS)
    for micro_batch_size in (4, 1):
        cut, _ = fitted(loaded, rows[:30], changed(**values, micro_batch_size=micro_batch_size))
        assert [loss for _, loss in cut.losses] == pytest.approx([loss for _, loss in whole.losses], rel=1e-4)
        assert cut.penalties == pytest.approx(whole.penalties, rel=1e-3)
        for name, weight in whole.weights.items():
            moved = (weight - plain.weights[name]).abs().max()
            assert (weight - cut.weights[name]).abs().max() < 0.02 * moved, "rounding is small beside what the penalty does"


def test_the_penalties_pull_towards_the_base_and_the_record_tells_their_part(loaded, rows, heldout):
    def distance(values) -> tuple[float, float, trainer.State]:
        with adapter.adapted(loaded, Lora(rank=4), 0) as model:
            settings = changed(**values, batch_size=4, micro_batch_size=4)
            inputs = trainer.TrainingInputs(model, PAD, rows, settings, lambda _: None, NEVER)
            end = trainer.fit(inputs, trainer.beginning(model, settings))
            kl = drift.measure(model, PAD, {"x": heldout}, 8)["x"]["kl"]
            return kl, float(objective.squared_update(model).detach()), end

    free, kept, small = (distance(values) for values in ({}, {"kl": 3.0}, {"l2": 1.0}))
    assert kept[0] < 0.7 * free[0]
    assert small[1] < 0.3 * free[1]
    summary = trainer.summary(rows, kept[2], changed(kl=3.0))
    assert 0 < summary["final_kl"] < summary["final_loss"]
    assert "stopped_early" not in summary
    # nothing is drawn towards the base where nothing has moved
    assert kept[2].losses[0][1] == pytest.approx(free[2].losses[0][1], rel=1e-6)


def test_the_base_is_looked_at_without_noise_and_draws_no_random_number(loaded, rows):
    lora = Lora(rank=4, dropout=0.2)
    without, _ = fitted(loaded, rows, changed(neftune=5.0), lora)
    hardly, _ = fitted(loaded, rows, changed(neftune=5.0, kl=1e-12), lora)
    assert [loss for _, loss in hardly.losses] == pytest.approx([loss for _, loss in without.losses], rel=1e-6)
    assert hardly.penalties["kl"] > 0


def test_the_kl_in_the_loss_is_that_of_the_measure(loaded, rows):
    """One batch, one step with a rate of 0: the penalty is kl x the KL per counted token of that batch."""
    with adapter.adapted(loaded, Lora(rank=4), 0) as model:
        generator = torch.Generator().manual_seed(7)
        with torch.no_grad():
            for weight in trainer.trainable(model).values():
                weight.add_(torch.randn(weight.shape, generator=generator) * 0.3)
        settings = changed(kl=0.25, learning_rate=1e-12, micro_batch_size=4)
        inputs = trainer.TrainingInputs(model, PAD, rows[:8], settings, lambda _: None, NEVER)
        end = trainer.fit(inputs, trainer.beginning(model, settings))
        found = drift.measure(model, PAD, {"x": rows[:8]}, 8)["x"]
    assert end.penalties["kl"] == pytest.approx(0.25 * found["kl"], rel=1e-4)
    assert end.losses[0][1] == pytest.approx(found["loss"] + 0.25 * found["kl"], rel=1e-4)


@pytest.mark.parametrize("lora", [Lora(rank=4), Lora(rank=4, use_rslora=True, alpha=3, target_modules="all-linear")], ids=str)
def test_the_squared_update_and_its_gradient_are_those_of_the_dense_computation(loaded, lora):
    with adapter.adapted(loaded, lora, 0) as model:
        generator = torch.Generator().manual_seed(7)
        with torch.no_grad():
            for weight in trainer.trainable(model).values():
                weight.add_(torch.randn(weight.shape, generator=generator) * 0.1)
        weights = list(trainer.trainable(model).values())
        by_gram = objective.squared_update(model)
        dense = sum(((b.double() @ a.double()) ** 2).sum() for a, b in factors(model).values())
        assert float(by_gram.detach()) == pytest.approx(float(dense.detach()), rel=1e-5)
        for one, other in zip(torch.autograd.grad(by_gram, weights), torch.autograd.grad(dense, weights), strict=True):
            assert torch.allclose(one, other, rtol=1e-4, atol=1e-5)


def test_the_update_of_a_layer_is_what_merging_would_add(loaded):
    """The factors carry the scale: alpha / sqrt(rank) here."""
    with adapter.adapted(loaded, Lora(rank=4, alpha=3, use_rslora=True), 0) as model:
        torch.nn.init.normal_(next(weight for name, weight in model.named_parameters() if "lora_B" in name))
        name, (a, b) = next(iter(factors(model).items()))
        assert torch.allclose(b @ a, model.get_submodule(name).get_delta_weight("default"), atol=1e-6)
        assert float(objective.squared_update(model)) == pytest.approx(float(((b @ a) ** 2).sum()), rel=1e-5)


def test_the_size_of_the_update_is_refused_with_dora_and_kl_is_not(loaded, rows):
    parts = deep(CONFIG)
    parts = {name: parts[name] for name in TrialSpec.model_fields if name in parts}
    parts["lora"]["use_dora"] = True
    parts["train"]["l2"] = 0.1
    with pytest.raises(ValidationError, match=r"train\.l2 is the size of B @ A"):
        TrialSpec.model_validate(parts)
    end, _ = fitted(loaded, rows[:8], changed(kl=1.0), Lora(rank=4, use_dora=True))
    assert "kl" in end.penalties


@pytest.mark.parametrize("values", [*PENALTIES, {"neftune": 5.0}], ids=str)
def test_a_number_that_is_none_ends_a_training_with_penalties_too(loaded, rows, values):
    with pytest.raises(trainer.NonFiniteLoss):
        fitted(loaded, rows, changed(**values, learning_rate=1000, max_grad_norm=1e9))


def test_the_memory_that_the_base_takes_beside_the_tuned_model_halves_the_micro_batch(loaded, rows, monkeypatch):
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


# ---- the early stop


def test_a_stop_that_never_comes_changes_nothing_to_the_bit(loaded, rows, heldout):
    lora = Lora(rank=4, dropout=0.2)
    settings = changed(kl=0.1, neftune=1.0, micro_batch_size=4)
    plain, _ = fitted(loaded, rows, settings, lora)
    looked, _ = fitted(loaded, rows, settings.model_copy(update={"stop_kl": 1e9}), lora, heldout=heldout)
    assert same(plain, looked)
    assert plain.kl == []
    assert [step for step, _ in looked.kl] == [1, 2, 3, 4]
    assert all(kl > 0 for _, kl in looked.kl)


def test_a_training_ends_at_the_first_look_beyond_the_threshold_and_its_summary_says_so(loaded, rows, heldout):
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


def test_a_training_of_many_steps_is_looked_at_about_twenty_times(loaded, mixed, heldout):
    settings = changed(batch_size=1, micro_batch_size=1, stop_kl=1e9)
    end, _ = fitted(loaded, mixed[:45], settings, heldout=heldout[:1])
    assert [step for step, _ in end.kl] == list(range(3, 46, 3))


@pytest.mark.slow
def test_a_training_that_goes_on_from_any_step_looks_and_stops_at_the_same_steps(loaded, mixed, heldout):
    lora = Lora(rank=4, dropout=0.2)
    settings = changed(batch_size=4, micro_batch_size=2, kl=0.3, l2=0.01, neftune=5.0, schedule="wsd", warmup=0.2, stop_kl=0.03)
    rows, heldout = mixed[:26], heldout[:8]
    whole, states = fitted(loaded, rows, settings, lora, heldout=heldout)
    assert trainer.stops(whole.kl, settings), "it was stopped"
    assert 3 < whole.step < 7
    assert [state.step for state in states] == list(range(1, whole.step + 1))
    for state in states:  # the last one is that after which it stopped
        again, _ = fitted(loaded, rows, settings, lora, heldout=heldout, start=state)
        assert same(again, whole)
        assert (again.step, again.kl, again.penalties) == (whole.step, whole.kl, whole.penalties)


def test_a_stop_without_rows_to_look_at_is_refused(loaded, rows):
    with pytest.raises(InputError, match="held-out rows"):
        fitted(loaded, rows, changed(stop_kl=0.1))
