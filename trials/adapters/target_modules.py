"""Selects the linear layers that get an adapter, by groups that are independent of an architecture's names."""

import difflib
import re
from collections.abc import Iterable, Iterator

from trials.errors import InputError

BLOCK = re.compile(r"(?:.*?\.)?([^.]+)\.(\d+)\.")
"""The first numbered part of a layer's name: model.layers.3.mlp.up_proj."""

_QKV = {
    *("q_proj", "k_proj", "v_proj", "query_key_value", "qkv_proj", "c_attn", "Wqkv"),  # Llama-like, GPT-NeoX, Phi-3, GPT-2, MPT
    *("q_a_proj", "q_b_proj", "kv_a_proj_with_mqa", "kv_b_proj", "kv_proj"),  # latent attention (DeepSeek), JetMoE
    *("in_proj_qkv", "in_proj_qkvz"),  # linear attention (Qwen3.5, Qwen3-Next)
    *("v_proj_current", "v_proj_delayed"),  # Zaya
    *("query", "key", "value", "query_key", "Wq", "Wk", "Wv", "project_q", "project_k", "project_v"),  # BERT, CTRL, CPM-Ant
    *("q_lin", "k_lin", "v_lin", "q", "k", "v"),  # XLM, xLSTM
}
_OUTPUT = {"o_proj", "out_proj", "dense", "c_proj", "attention_out", "out_lin", "output", "Wo"}
_FUSED = {"query_key_value", "qkv_proj", "c_attn", "Wqkv", "in_proj_qkv", "in_proj_qkvz"}
_MLP = {
    *("gate_proj", "up_proj", "down_proj", "gate_up_proj"),
    *("dense_h_to_4h", "dense_4h_to_h", "fc1", "fc2", "fc_in", "fc_out", "c_fc"),
}
_HEAD = {"lm_head", "embed_out", "score"}
_ATTENTION_PART = re.compile(r"attn|attention")
_MLP_PART = re.compile(r"mlp|ffn|feed_?forward|shared_expert|^experts?$|^intermediate$|^output$")
_ROUTER_PART = re.compile(r"router|classifier|^gate$|shared_expert_gate")


def group(name: str) -> str | None:
    """The group of a layer by its name ("h.0.mlp.c_proj"): `qkv`, `mlp`, `output` (of attention) or `other`.

    None for a model's head, which is in no group.
    """
    # parents come first, because names are ambiguous: GPT-2 has a c_proj in attention and MLP, others a gate_proj in both
    *parents, last = name.split(".")
    if last in _HEAD:
        return None
    if any(_ROUTER_PART.search(part) for part in (*parents, last)):
        return "other"
    if any(_ATTENTION_PART.search(part) for part in parents):
        return "qkv" if last in _QKV else "output" if last in _OUTPUT else "other"
    if any(_MLP_PART.search(part) for part in parents) or last in _MLP:
        return "mlp"
    return "qkv" if last in _QKV else "output" if last in _OUTPUT else "other"


_GROUPS = {
    "qkv": {"qkv"},
    "attention": {"qkv", "output"},
    "mlp": {"mlp"},
    "all-linear": {"qkv", "output", "mlp", "other"},
}


def wanted(target_modules: str | Iterable[str], linear: Iterable[str]) -> set[str]:
    """Those of a model's `linear` layers that a group, or a list of names (or ends of names), selects.

    Raises InputError if the model has no layer of the group, or lacks one of the names.
    """
    there = set(linear)
    if isinstance(target_modules, str):
        found = {name for name in there if group(name) in _GROUPS[target_modules]}
        unknown = set() if found else {target_modules}
    else:
        found = {name for name in there if matches(name, target_modules)}
        unknown = {name for name in target_modules if not any(matches(layer, [name]) for layer in there)}
    if unknown:
        names = sorted({_last(name) for name in there})
        near = [close for name in unknown - {*_GROUPS} for close in difflib.get_close_matches(name, [*names, *_GROUPS], n=1)]
        hint = f"did you mean {', '.join(map(repr, sorted(near)))}? It" if near else "it"
        raise InputError(
            f"lora.target_modules: the base has no {', '.join(sorted(unknown))}; {hint} has {', '.join(names)}, and the groups "
            f"are {', '.join(_GROUPS)}"
        )
    return found


def chosen(target_modules: str | Iterable[str], linear: Iterable[str], modules: Iterable[str] = ()) -> list[str]:
    """PEFT's target_modules for these layers, sorted: the shortest end of each name that matches no other module.

    `modules`: the names of all modules, because PEFT matches against these, not only against linear layers.
    """
    there = set(linear)
    layers = wanted(target_modules, there)
    others = {end for name in there.union(modules) - layers for end in _ends(name)}
    return sorted({next((end for end in _ends(name) if end not in others), name) for name in layers})


def _ends(name: str) -> Iterator[str]:
    """c, b.c and a.b.c for a.b.c."""
    parts = name.split(".")
    for length in range(1, len(parts) + 1):
        yield ".".join(parts[-length:])


def matches(name: str, targets: Iterable[str]) -> bool:
    """Whether a layer's name equals, or ends with, one of the targets, by PEFT's rule."""
    return any(name == target or name.endswith(f".{target}") for target in targets)


def _last(name: str) -> str:
    return name.rpartition(".")[2]


def blocks(layers: str | Iterable[int], count: int) -> list[int]:
    """The numbers of the blocks that `lora.layers` selects out of `count`; raises InputError if one does not exist."""
    if layers == "all":
        return list(range(count))
    if isinstance(layers, str):
        third = ("first-third", "middle-third", "last-third").index(layers)
        numbers = list(range(round(count * third / 3), round(count * (third + 1) / 3)))
    else:
        numbers = sorted(set(layers))
    if not numbers or numbers[0] < 0 or numbers[-1] >= count:
        given = layers if isinstance(layers, str) else ", ".join(map(str, numbers))
        raise InputError(f"lora.layers: the base has {count} blocks, 0 to {count - 1}, but got {given}")
    return numbers


def in_blocks(names: Iterable[str], layers: str | Iterable[int], modules: Iterable[str]) -> list[str]:
    """Those of the named layers that lie in the blocks of `lora.layers`, sorted.

    `modules`: the names of all of the base's modules, from which its blocks are counted. Raises InputError if no layer is left.
    """
    found = sorted(names)
    if layers == "all":
        return found
    places = {name: match for name in found if (match := BLOCK.match(name))}
    numbers = set(blocks(layers, depth(found, modules)))
    kept = [name for name, match in places.items() if int(match[2]) in numbers]
    if not kept:
        there = sorted({int(match[2]) for match in places.values()})
        raise InputError(
            f"lora.layers: none of lora.target_modules is in block {', '.join(map(str, sorted(numbers)))}; "
            f"the blocks that have some are {', '.join(map(str, there)) or 'none'}"
        )
    return kept


def depth(names: Iterable[str], modules: Iterable[str]) -> int:
    """The number of blocks in the stacks that contain the named layers."""
    stacks = {match[1] for name in names if (match := BLOCK.match(name))}
    found = [int(match[2]) for name in modules if (match := BLOCK.match(f"{name}.")) and match[1] in stacks]
    return max(found, default=-1) + 1


def part(off: str, adapted: Iterable[str], count: int) -> list[str]:
    """Those of the adapted layers in a part of the network: q, k or v, or a third of the base's `count` blocks.

    Raises InputError if there are none, or if q, k and v are one layer.
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
