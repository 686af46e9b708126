"""Packed rows train as padded ones: same loss, same gradients, and none of another row's tokens."""

import re

import pytest
import torch

from tests.factories.training import PAD, PENALTIES, SETTINGS, WEIGHTS, changed, fitted
from tests.fuzz import miniatures
from trials.adapters import peft_adapter
from trials.data.batching import collate, counted
from trials.mix import Example
from trials.models import base
from trials.spec import Lora
from trials.template import IGNORED
from trials.training import packing, trainer

LORA = Lora(rank=4, alpha=8, target_modules="all-linear")


def drawn(*lengths: int) -> list[Example]:
    generator = torch.Generator().manual_seed(1)
    texts = [torch.randint(5, 1500, (length,), generator=generator).tolist() for length in lengths]
    return [Example("x", ids, [IGNORED] * (len(ids) // 3) + ids[len(ids) // 3 :]) for ids in texts]


def miniature(name: str, **settings) -> base.LoadedBase:
    return base.LoadedBase(miniatures.miniature(name, **settings).requires_grad_(False), miniatures.tokenizer(), None)


def obstacle(loaded, rows, settings=SETTINGS, lora=LORA) -> str | None:
    packing._alike.clear()
    with peft_adapter.adapted(loaded, lora, 0) as model:
        return packing.obstacle(model, settings, rows)


@pytest.mark.parametrize("name", ["llama", "qwen2", "qwen3", "gpt_neox", "olmo2"])
def test_gradients_equal_those_of_padded_rows(name):
    loaded, rows = miniature(name), drawn(31, 9, 40, 1, 17)
    assert obstacle(loaded, rows) is None
    with peft_adapter.adapted(loaded, LORA, 0) as model:
        generator = torch.Generator().manual_seed(2)
        for weight in model.parameters():
            if weight.requires_grad:
                weight.data.add_(torch.randn(weight.shape, generator=generator) * 0.05)
        model.train()
        padded, packed = (packing._gradient(model, batch) for batch in (collate(rows, PAD), packing.collate(rows)))
    assert padded.norm() > 0
    assert (padded - packed).norm() < 1e-6 * padded.norm()


def test_packed_rows_count_the_same_tokens(rows):
    assert int(counted(packing.collate(rows)["labels"]).sum()) == int(counted(collate(rows, PAD)["labels"]).sum())
    whole = [Example("x", [3, 4, 5], [3, 4, 5]), Example("x", [6], [6]), Example("x", [7, 8], [7, 8])]
    batch = packing.collate(whole)
    assert batch["labels"].tolist() == [[IGNORED, 4, 5, IGNORED, IGNORED, 8]]
    assert batch["position_ids"].tolist() == [[0, 1, 2, 0, 0, 1]]


@pytest.mark.parametrize("values", [{}, *PENALTIES, *WEIGHTS], ids=str)
def test_every_loss_and_penalty_is_that_of_padded_rows(loaded, rows, values):
    settings = changed(**values, micro_batch_size=4)
    (padded, _), (packed, _) = (fitted(loaded, rows, settings, packed=packed) for packed in (False, True))
    assert [loss for _, loss in packed.losses] == pytest.approx([loss for _, loss in padded.losses], rel=1e-5)
    assert packed.penalties == pytest.approx(padded.penalties, rel=1e-3)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("mamba", "forward pass takes no"),
        ("gpt_neo", "its attention is its own|gradients of packed rows differ"),
        ("bloom", "takes no position_ids|its attention is its own"),
        ("gemma3_text", "its past has a window"),
        ("doge", "gradients of packed rows differ"),  # its attention has weights of its own
        ("qwen3_next", "its past has a window, a state"),
    ],
)
def test_architectures_that_cannot_are_padded(name, reason):
    assert re.search(reason, str(obstacle(miniature(name), drawn(31, 9))))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_model_that_reads_across_rows_is_padded(monkeypatch, dtype):
    loaded, rows = miniature("llama"), drawn(300, 10, 250)
    loaded.model.to(dtype)
    assert obstacle(loaded, rows) is None

    def leaking(module, query, key, value, mask, **others):
        found = torch.nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=True)
        return found.transpose(1, 2), None

    monkeypatch.setitem(packing.AttentionInterface._global_mapping, packing._NAME, leaking)
    assert "differ" in str(obstacle(loaded, rows))


def test_training_goes_on_with_the_rows_as_it_began(loaded, rows):
    """What decides may come out otherwise on another machine; a state of an earlier version says nothing and was padded."""
    _, states = fitted(loaded, rows, SETTINGS, packed=True)
    assert [state.packed_rows for state in states] == [True] * len(states)
    values, tensors = states[0].packed()
    del values["packed_rows"]
    assert not trainer.State.unpacked(values, tensors).packed_rows


def test_noise_and_dropout_are_padded(loaded, rows):
    assert "neftune" in str(obstacle(loaded, rows, changed(neftune=5.0)))
    assert "dropout" in str(obstacle(loaded, rows, lora=Lora(rank=4, dropout=0.1)))
    assert obstacle(loaded, rows) is None


def test_pass_is_filled_up_by_a_row_of_its_own():
    rows = packing.Rows.of([5, 3], torch.device("cpu"))
    filled = rows.filled(12, 3)
    assert (filled.lengths, filled.starts.tolist(), filled.longest) == ([5, 3, 4], [0, 5, 8, 12, 12], 5)
    assert rows.filled(8, 2).lengths == [5, 3]


def test_rows_are_tried_once_for_adapters_of_a_kind_and_rows_of_a_length(loaded, rows, monkeypatch):
    assert obstacle(loaded, rows) is None
    tried = []
    gradient = packing._gradient
    monkeypatch.setattr(packing, "_gradient", lambda *given: tried.append(1) or gradient(*given))
    longest = max(rows, key=lambda row: len(row.input_ids))
    longer = Example("x", [*longest.input_ids, 5], [*longest.labels, 5])
    changes = {
        "rank": (LORA.model_copy(update={"rank": 2}), rows, 0),
        "layers": (LORA.model_copy(update={"target_modules": "qkv"}), rows, 2),
        "DoRA": (LORA.model_copy(update={"use_dora": True}), rows, 2),
        "length": (LORA, [*rows, longer], 2),
    }
    for name, (lora, some, passes) in changes.items():
        tried.clear()
        with peft_adapter.adapted(loaded, lora, 0) as model:
            assert packing.obstacle(model, SETTINGS, some) is None
        assert len(tried) == passes, name


def test_rows_of_16_bits_attend_in_float32_on_a_cpu():
    generator = torch.Generator().manual_seed(3)
    query, key, value = (torch.randn(1, 2, 9, 8, generator=generator).bfloat16() for _ in range(3))
    rows = packing.Rows.of([5, 4], torch.device("cpu"))
    packing._active.append(rows)
    try:
        found, _ = packing.attention(None, query, key, value, None)
    finally:
        packing._active.pop()
    whole = [
        torch.nn.functional.scaled_dot_product_attention(
            *(one[:, :, part].float() for one in (query, key, value)), is_causal=True
        )
        for part in (slice(0, 5), slice(5, 9))
    ]
    assert torch.equal(found, torch.cat(whole, dim=2).transpose(1, 2).bfloat16())
