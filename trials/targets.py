"""The linear layers that an adapter is put on: groups by what a layer does, whatever the architecture calls it."""

import re
from collections.abc import Iterable

from trials.errors import InputError

BLOCK = re.compile(r"(?:.*?\.)?([^.]+)\.(\d+)\.")
"""The first numbered part of a layer's name: model.layers.3.mlp.up_proj."""

# Llama, Mistral, Qwen, Gemma, OLMo, Phi-2, GPT-J, GPT-Neo, OPT | GPT-NeoX, Falcon, BLOOM | Phi-3 | GPT-2 | MPT
_QKV = {"q_proj", "k_proj", "v_proj", "query_key_value", "qkv_proj", "c_attn", "Wqkv"}
_OUTPUT = {"o_proj", "out_proj", "dense", "c_proj"}
_FUSED = _QKV - {"q_proj", "k_proj", "v_proj"}
_MLP = {
    *("gate_proj", "up_proj", "down_proj", "gate_up_proj"),
    *("dense_h_to_4h", "dense_4h_to_h", "fc1", "fc2", "fc_in", "fc_out", "c_fc"),
}
_HEAD = {"lm_head", "embed_out", "score"}


def group(name: str) -> str | None:
    """`qkv`, `mlp`, `output` (of attention) or `other` for a layer by its name, as far as that is given ("h.0.mlp.c_proj").

    None for a model's head, which is in no group. GPT-2 calls the last layer of its attention and of its MLP the same.
    """
    *parents, last = name.split(".")
    if last in _HEAD:
        return None
    if last in _MLP or (last == "c_proj" and parents[-1:] == ["mlp"]):
        return "mlp"
    return "qkv" if last in _QKV else "output" if last in _OUTPUT else "other"


_GROUPS = {
    "qkv": {"qkv"},
    "attention": {"qkv", "output"},
    "mlp": {"mlp"},
    "all-linear": {"qkv", "output", "mlp", "other"},
}


def chosen(target_modules: str | Iterable[str], linear: Iterable[str]) -> list[str]:
    """What PEFT is told of a model's `linear` layers, sorted: a layer's last name, with its parent's where that is ambiguous.

    Raises InputError when the model has none of the group, or lacks one of the names.
    """
    there = set(linear)
    if isinstance(target_modules, str):
        wanted = {name for name in there if group(name) in _GROUPS[target_modules]}
        unknown = set() if wanted else {target_modules}
    else:
        wanted = {name for name in there if meant(name, target_modules)}
        unknown = {name for name in target_modules if not any(meant(layer, [name]) for layer in there)}
    if unknown:
        names = ", ".join(sorted({_last(name) for name in there}))
        raise InputError(
            f"lora.target_modules: the base has no {', '.join(sorted(unknown))}; it has {names}, and the groups are "
            f"{', '.join(_GROUPS)}"
        )
    shared = {_last(name) for name in wanted} & {_last(name) for name in there - wanted}
    return sorted({".".join(name.split(".")[-2:]) if _last(name) in shared else _last(name) for name in wanted})


def meant(name: str, targets: Iterable[str]) -> bool:
    """Whether a layer is one of these, which are names or their ends: PEFT's rule."""
    return any(name == target or name.endswith(f".{target}") for target in targets)


def _last(name: str) -> str:
    return name.rpartition(".")[2]


def blocks(layers: str | Iterable[int], count: int) -> list[int]:
    """The numbers of the blocks that `lora.layers` means, of a base that has `count`; InputError where there are none such."""
    if layers == "all":
        return list(range(count))
    if isinstance(layers, str):
        third = ("first-third", "middle-third", "last-third").index(layers)
        numbers = list(range(round(count * third / 3), round(count * (third + 1) / 3)))
    else:
        numbers = sorted(set(layers))
    if not numbers or numbers[0] < 0 or numbers[-1] >= count:
        told = layers if isinstance(layers, str) else ", ".join(map(str, numbers))
        raise InputError(f"lora.layers: the base has {count} blocks, 0 to {count - 1}, but got {told}")
    return numbers


def part(off: str, adapted: Iterable[str], count: int) -> list[str]:
    """Of the adapted layers those in a part of the network: q, k or v, or a third of the base's `count` blocks.

    Raises InputError where there are none, or where q, k and v are one layer.
    """
    layers = list(adapted)
    if off in ("q", "k", "v"):
        found = [name for name in layers if _last(name) == f"{off}_proj"]
        if not found and (fused := sorted({_last(name) for name in layers} & _FUSED)):
            raise InputError(f"derive.off: {off} is a part of {fused[0]} in this base, and one layer cannot be taken apart")
    else:
        numbers = set(blocks(off, count))
        found = [name for name in layers if (match := BLOCK.match(name)) and int(match[2]) in numbers]
    if not found:
        raise InputError(
            f"derive.off: the adapter has nothing in {off}; it is on {', '.join(sorted({_last(n) for n in layers}))}"
        )
    return found
