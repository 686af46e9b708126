"""The linear layers that an adapter is put on: groups by what a layer does, whatever the architecture calls it."""

from collections.abc import Iterable

from trials.errors import InputError

# Llama, Qwen, Gemma, OLMo, Mistral, Phi-2 | GPT-NeoX, Falcon, BLOOM | Phi-3 | GPT-2 | MPT
_QKV = {"q_proj", "k_proj", "v_proj", "query_key_value", "qkv_proj", "c_attn", "Wqkv"}
_MLP = {
    *("gate_proj", "up_proj", "down_proj", "gate_up_proj"),
    *("dense_h_to_4h", "dense_4h_to_h", "fc1", "fc2", "c_fc"),
}
_HEAD = {"lm_head", "embed_out", "score"}


def group(name: str) -> str | None:
    """`qkv`, `mlp`, `output` (of attention); None for a model's head, which is in no group."""
    if name in _HEAD:
        return None
    return "qkv" if name in _QKV else "mlp" if name in _MLP else "output"


_GROUPS = {"qkv": {"qkv"}, "attention": {"qkv", "output"}, "mlp": {"mlp"}, "all-linear": {"qkv", "output", "mlp"}}


def chosen(target_modules: str | Iterable[str], linear: Iterable[str]) -> list[str]:
    """The names among a model's `linear` layers that are meant, sorted; raises InputError when it has none of them."""
    there = set(linear)
    if isinstance(target_modules, str):
        names = {name for name in there if group(name) in _GROUPS[target_modules]}
        unknown = set() if names else {target_modules}
    else:
        names = set(target_modules)
        unknown = names - there
    if unknown:
        raise InputError(
            f"lora.target_modules: the base has no {', '.join(sorted(unknown))}; it has {', '.join(sorted(there))}, and the "
            f"groups are {', '.join(_GROUPS)}"
        )
    return sorted(names)


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
