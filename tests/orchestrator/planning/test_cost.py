"""Counted memory and seconds are those of torch and of plain code."""

import pytest

from orchestrator import gpu_catalog
from orchestrator.planning import cost, model_shape
from trials.hub.hub import Hub
from trials.spec import Evaluation, Lora

QKV = ("q_proj", "k_proj", "v_proj")
ALL = (*QKV, "o_proj", "gate_proj", "up_proj", "down_proj")
LLAMA_1B = {
    "model_type": "llama",
    "num_attention_heads": 32,
    "hidden_size": 2048,
    "num_hidden_layers": 16,
    "num_key_value_heads": 8,
    "head_dim": 64,
    "intermediate_size": 8192,
    "vocab_size": 128256,
    "tie_word_embeddings": True,
}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("targets", [QKV, ALL], ids=["qkv", "all"])
@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_counted_bytes_equal_torchs(spec, dtype, targets, dropout):
    from trials.adapters import peft_adapter
    from trials.models import base

    rows, length = 2, 96
    base_spec = spec.base.model_copy(update={"dtype": dtype})
    spec = spec.model_copy(
        update={
            "base": base_spec,
            "data": spec.data.model_copy(update={"max_length": length}),
            "lora": spec.lora.model_copy(update={"target_modules": targets, "rank": 16, "dropout": dropout}),
            "train": spec.train.model_copy(update={"batch_size": rows, "micro_batch_size": rows}),
        }
    )
    shape = model_shape.read_shape(base_spec, Hub())
    counted = cost.memory(shape, spec)
    with peft_adapter.adapted(base.load(base_spec, Hub()), spec.lora, seed=0) as model:
        assert sum(p.numel() for p in model.parameters() if p.requires_grad) == shape.adapter(spec)
        kept = _kept_bytes(model.train(), rows, length)
        weights = {p.untyped_storage().data_ptr(): p.untyped_storage().nbytes() for p in model.base_model.parameters()}
    logits = rows * length * shape.vocab * 4  # what the loss keeps of them, a third of their peak
    # dropout's mask is counted as a GPU has it, a byte; the CPU keeps a float32, and none where the embedding is the input
    inputs = shape.layers * sum(shape.projections[name][0] for name in targets)
    masks = rows * length * (4 * (inputs - 3 * shape.hidden) - inputs) if dropout else 0
    assert (sum(kept) - logits - masks) / counted["activations"] == pytest.approx(1, abs=0.02)
    assert logits * 3 == counted["logits"]
    # the constants of the 4-bit blocks lie outside the parameters: an eighth of a bit a weight
    assert (sum(weights.values()) - shape.adapter(spec) * 4) / counted["weights"] == pytest.approx(1, abs=0.03)


@pytest.mark.parametrize(
    "lora",
    [
        *({"layers": "last-third"}, {"layers": (1,)}, {"init": "pissa"}, {"init": "olora", "layers": "first-third"}),
        *({"method": "oft"}, {"method": "shira"}, {"method": "full"}, {"method": "oft", "layers": (1,)}),
    ],
    ids=lambda lora: "-".join(map(str, lora.values())),
)
def test_partial_and_initial_adapters_are_counted(spec, lora, tmp_path):
    counted_as_measured(spec, lora, tmp_path)


@pytest.mark.parametrize(
    "base", [{"dtype": "bfloat16"}, {"quantization": "none"}, {"dtype": "bfloat16", "quantization": "none"}]
)
def test_a_full_update_is_counted_in_each_type(spec, tmp_path, base):
    spec = spec.model_copy(update={"base": spec.base.model_copy(update=base)})
    counted_as_measured(spec, {"method": "full"}, tmp_path)


def counted_as_measured(spec, lora, tmp_path):
    """Weights, what is kept for the backward pass, and the adapter's file."""
    from trials.adapters import peft_adapter
    from trials.adapters.low_rank import Converted, Square
    from trials.models import base

    rows, length = 2, 96
    spec = spec.model_copy(
        update={
            "data": spec.data.model_copy(update={"max_length": length}),
            "lora": Lora(rank=16, target_modules="all-linear", **lora),
            "train": spec.train.model_copy(update={"batch_size": rows, "micro_batch_size": rows}),
        }
    )
    shape = model_shape.read_shape(spec.base, Hub())
    counted = cost.memory(shape, spec)
    with peft_adapter.adapted(base.load(spec.base, Hub()), spec.lora, seed=0) as model:
        assert sum(p.numel() for p in model.parameters() if p.requires_grad) == shape.adapter(spec)
        variants = [one for module in model.modules() for one in getattr(module, "lora_variant", {}).values()]
        converted = [one for one in variants if isinstance(one, Converted)]
        assert all(isinstance(one, Converted | Square) for one in variants)
        frozen = [weight for name, weight in model.named_parameters() if "lora_" in name and not weight.requires_grad]
        begun = [tensor for one in converted for tensor in (one.down, one.up)]
        assert sum(tensor.numel() for tensor in [*frozen, *begun]) == shape.begun(spec)
        kept = _kept_bytes(model.train(), rows, length)
        peft_adapter.save(model, tmp_path / "adapter")
    assert (sum(kept) - rows * length * shape.vocab * 4) / counted["activations"] == pytest.approx(1, abs=0.03)
    file = tmp_path / "adapter" / "adapter_model.safetensors"
    places = 2 * shape.adapter(spec) if spec.lora.method == "shira" else 0
    assert file.stat().st_size == pytest.approx(4 * (shape.adapter(spec) + shape.begun(spec) + places), rel=0.05)


def _kept_bytes(model, rows: int, length: int) -> list[int]:
    """Bytes of each tensor that a forward pass keeps for its backward pass, weights left out."""
    import torch

    begun = [
        tensor
        for module in model.modules()
        for one in getattr(module, "lora_variant", {}).values()
        for tensor in vars(one).values()
    ]
    own = {p.untyped_storage().data_ptr() for p in [*model.parameters(), *model.buffers(), *begun]}
    kept: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.is_sparse:  # SHiRA's own weights and places
            return tensor
        if (place := tensor.untyped_storage().data_ptr()) not in own:
            kept[place] = tensor
        return tensor

    ids = torch.randint(2, 500, (rows, length), generator=torch.Generator().manual_seed(0))
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        _ = model(input_ids=ids, attention_mask=torch.ones_like(ids), labels=ids).loss
    return [tensor.untyped_storage().nbytes() for tensor in kept.values()]


def test_a_full_update_of_plain_weights_is_counted_as_their_gradient_and_of_4_bit_ones_with_two_products_more(spec):
    shape, machine = model_shape.shape_of("llama", LLAMA_1B), cost.Machine.of(gpu_catalog.find("H200"))

    def seconds(quantization: str) -> float:
        changed = {"base": spec.base.model_copy(update={"quantization": quantization}), "lora": Lora(method="full")}
        trial = spec.model_copy(update={**changed, "data": spec.data.model_copy(update={"samples": 2000})})
        return cost.train_seconds(shape, trial, 1000, machine)

    trained = shape.adapter(spec.model_copy(update={"lora": Lora(method="full")}))
    product = 2000 * spec.train.epochs * 1000 * 2 * trained / machine.rate
    assert seconds("nf4") - seconds("none") == pytest.approx(2 * product)


def test_counted_seconds_on_an_h200(spec):
    """Ranges: the estimates for Llama-3.2-1B and ordinary Hugging Face code that the counting was made for, twice as wide."""
    shape, machine = model_shape.shape_of("llama", LLAMA_1B), cost.Machine.of(gpu_catalog.find("H200"))
    trial = spec.model_copy(
        update={
            "data": spec.data.model_copy(update={"samples": 2000}),
            "train": spec.train.model_copy(update={"batch_size": 8, "micro_batch_size": 8}),
        }
    )
    assert 10 < cost.train_seconds(shape, trial, 111, machine) < 40
    hellaswag = Evaluation(task="hellaswag", metric="acc_norm")
    gsm8k = Evaluation(task="gsm8k", metric="exact_match", shots=5)
    assert 30 < cost.evaluate_seconds(shape, hellaswag, spec.base, machine) < 180
    assert 80 < cost.evaluate_seconds(shape, gsm8k, spec.base, machine) < 430
