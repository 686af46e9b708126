"""Every causal architecture that is not refused trains as a plain loop does, and evaluates merged as with its adapter."""

from dataclasses import replace

import pytest
import torch

from tests import fuzz
from tests.fuzz import miniatures
from trials.adapters import derived, peft_adapter
from trials.errors import InputError
from trials.mix import Example
from trials.models import base, layout, meta_model, rehearsal
from trials.spec import Lora, Train
from trials.template import IGNORED
from trials.training import packing, trainer

LORA = Lora(rank=4, alpha=8, target_modules="all-linear")
METHODS = [
    LORA,
    Lora(method="oft", block_size=2, target_modules="all-linear"),
    Lora(method="shira", rank=1, target_modules="all-linear"),
    Lora(method="full", target_modules="all-linear"),
]


def rows() -> list[Example]:
    drawn = torch.Generator().manual_seed(1)
    lengths = torch.randint(8, 40, (8,), generator=drawn).tolist()
    texts = [torch.randint(5, 1500, (length,), generator=drawn).tolist() for length in lengths]
    return [Example("x", ids, [IGNORED] * (len(ids) // 2) + ids[len(ids) // 2 :]) for ids in texts]


def plain_losses(model, settings: Train) -> list[float]:
    """One row at a time, through the model's own logits."""
    weights = list(trainer.trainable(model).values())
    optimizer, found = torch.optim.AdamW(weights, lr=settings.learning_rate, weight_decay=0.0), []
    model.train()
    for first in range(0, 8, settings.batch_size):
        batch = rows()[first : first + settings.batch_size]
        tokens = sum(label != IGNORED for row in batch for label in row.labels[1:])
        total = 0.0
        for row in batch:
            logits = model(input_ids=torch.tensor([row.input_ids]), attention_mask=torch.ones(1, len(row.labels))).logits[0]
            wanted = torch.tensor(row.labels[1:])
            loss = (
                torch.nn.functional.cross_entropy(logits[:-1].float(), wanted, ignore_index=IGNORED, reduction="sum") / tokens
            )
            loss.backward()
            total += float(loss)
        torch.nn.utils.clip_grad_norm_(weights, settings.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad()
        found.append(total)
    return found


def ready(name: str, lora: Lora = LORA) -> base.LoadedBase:
    model = miniatures.miniature(name).requires_grad_(False)
    if failures := rehearsal.failures(model):
        pytest.skip(str(failures))
    try:
        layout.adapted(lora, meta_model.layout(model))
    except InputError as refused:
        pytest.skip(str(refused))
    return base.LoadedBase(model, miniatures.tokenizer(), None)


@pytest.mark.parametrize("name", fuzz.cases((name, name) for name in miniatures.names()))
def test_training_is_the_plain_loop(name):
    loaded = ready(name)
    if base.dropouts(loaded.model):
        pytest.skip("draws random numbers as it trains")
    settings = Train(learning_rate=1e-3, batch_size=4, micro_batch_size=2, warmup=0)
    with peft_adapter.adapted(loaded, LORA, 0) as model:
        wanted = plain_losses(model, settings)
    with peft_adapter.adapted(loaded, LORA, 0) as model:
        packed = packing.obstacle(model, settings, rows()) is None
        start = replace(trainer.beginning(model, settings), packed_rows=packed)
        inputs = trainer.TrainingInputs(model, 0, rows(), settings, lambda state: None, trainer.Pace(1e9, 1e-9))
        end = trainer.fit(inputs, start)
    assert [loss for _, loss in end.losses] == pytest.approx(wanted, abs=2e-3)


@pytest.mark.parametrize("lora", METHODS, ids=lambda lora: lora.method)
@pytest.mark.parametrize("name", fuzz.cases((name, name) for name in miniatures.names()))
@torch.no_grad()
def test_the_merged_model_is_the_adapter_and_strength_0_the_base(name, lora):
    loaded = ready(name, lora)
    ids = torch.tensor([rows()[0].input_ids])
    alone = loaded.model(input_ids=ids).logits
    with peft_adapter.adapted(loaded, lora, 0) as model:
        assert torch.equal(model(input_ids=ids).logits, alone)
        for weight in trainer.trainable(model).values():
            weight.add_(0.01 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(weight.numel())))
        tuned = model(input_ids=ids).logits
        with peft_adapter.merged(model) as whole:
            assert torch.allclose(whole(input_ids=ids).logits, tuned, atol=1e-3 * float(tuned.abs().max()))
        derived.strengthen(model, 0)
        assert torch.equal(model(input_ids=ids).logits, alone)
    assert torch.equal(loaded.model(input_ids=ids).logits, alone), "the base is as it was"
