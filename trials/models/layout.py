"""Checks a trial against the architecture and tokenizer of its base, before any weight is loaded.

The layout of a base (names and sizes of its layers, positions, special tokens) follows from its small files alone. Building the
model on torch's meta device takes seconds, so the layout is cached beside the hub's files, by their digest.
"""

import hashlib
import importlib.metadata
import json
import re
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import huggingface_hub

from trials.adapters import target_modules
from trials.errors import InputError
from trials.hub.hub import Hub
from trials.ledger import storage
from trials.models.modules import Layout, Tokens
from trials.spec import Base, Lora, TrialSpec

_FILES = (
    *("config.json", "generation_config.json", "tokenizer_config.json"),
    *("special_tokens_map.json", "added_tokens.json", "tokenizer.json"),
)
_VERSION = 5  # of Layout and Tokens; raise it when their fields change, so that cached ones are read again
_SMALL = 0.01  # share of the model's weights below which layers get no note


def of(base: Base, hub: Hub) -> tuple[Layout, Tokens] | None:
    """The layout and tokens of a base; None for a GGUF file that is not on this machine yet."""
    if base.gguf is not None:
        from trials.models import gguf  # imports torch

        file = gguf.file(base, hub, fetch=False)
        if file is None:
            return None
        digest = hashlib.sha256(f"{file}:{file.stat().st_size}:{file.stat().st_mtime_ns}".encode())
    else:
        digest = _digest(base, hub)
    if digest is None:  # nothing on this machine to cache by
        return _read(base, hub)
    # transformers decides the names of the layers, and the quantisation and type which notes apply
    for part in (str(_VERSION), importlib.metadata.version("transformers"), str(base.quantization != "none"), base.dtype):
        digest.update(part.encode())
    return _kept(base, hub, digest.hexdigest())


def known(base: Base, hub: Hub) -> tuple[Layout, Tokens] | None:
    """As `of`, for a base whose files are on this machine; else None."""
    if base.gguf is not None or not (hub.has(base.model) or _file(base, hub, "config.json")):
        return None
    return of(base, hub)


def _read(base: Base, hub: Hub) -> tuple[Layout, Tokens]:
    from trials.models import meta_model  # imports torch and transformers

    return meta_model.read(base, hub)


def _digest(base: Base, hub: Hub) -> Any:
    """The digest of the files that determine a layout; None if not even a configuration is on this machine."""
    found = {name: path for name in _FILES if (path := _file(base, hub, name))}
    if "config.json" not in found:
        return None
    return hashlib.sha256(b"".join(name.encode() + path.read_bytes() for name, path in found.items()))


def _file(base: Base, hub: Hub, name: str) -> Path | None:
    """A file of the base, from its folder or the hub's cache; None if it is not on this machine."""
    folder = Path(hub.locate(base.model))
    if folder.is_dir():
        return folder / name if (folder / name).is_file() else None
    found = huggingface_hub.try_to_load_from_cache(base.model, name, revision=base.revision or "main")
    return Path(found) if isinstance(found, str) else None


_found: dict[str, tuple[Layout, Tokens]] = {}


def _kept(base: Base, hub: Hub, digest: str) -> tuple[Layout, Tokens]:
    if digest not in _found:
        path = Path(huggingface_hub.constants.HF_HOME) / "slimsweep" / f"layout-{digest[:32]}.json"
        try:
            layout, tokens = json.loads(path.read_text(encoding="utf-8"))
            _found[digest] = Layout(**layout), Tokens(**tokens)
        except (OSError, ValueError, TypeError):  # no such file, or an incomplete one
            _found[digest] = _read(base, hub)
            with suppress(OSError):  # an unwritable cache only costs the next command some seconds
                path.parent.mkdir(parents=True, exist_ok=True)
                storage.write_text(path, json.dumps([asdict(part) for part in _found[digest]]))
    return _found[digest]


# ---------------------------------------------------------------------- errors


def check(spec: TrialSpec, found: tuple[Layout, Tokens]) -> list[str]:
    """Returns the notes on the spec; raises InputError if the base cannot be trained as the spec says."""
    layout, tokens = found
    model = spec.base.model
    if tokens.end is None:
        raise InputError(
            f"base.model {model!r}: its tokenizer has no end token, and its configuration names none that the tokenizer "
            "knows; set eos_token in its tokenizer_config.json"
        )
    needed = [tokens.end, *tokens.fed, *(tokens.chat if spec.chats else [])]
    for token in [token for token in needed if token in tokens.beyond]:
        raise InputError(
            f"base.model {model!r}: the tokenizer's token {token!r} has no row in the embedding, which has {layout.rows}; "
            "use the tokenizer that belongs to these weights, or weights whose embedding was resized for it"
        )
    for kind, reason in layout.failures.items():
        if kind == "evaluation" or not spec.is_baseline:
            raise InputError(
                f"base.model {model!r}: {kind} fails with this architecture on a few tokens and random weights ({reason}); "
                "use another base"
            )
    if tokens.longest < 2:
        raise InputError(
            f"base.model {model!r}: lm-eval takes the length {tokens.longest} from its configuration or tokenizer; set "
            "max_position_embeddings in its config.json"
        )
    if not spec.is_baseline and layout.positions is not None and spec.data.max_length > layout.positions:
        raise InputError(
            f"data.max_length: {spec.data.max_length} tokens, but {model} has {layout.positions} positions; "
            f"it can be at most {layout.positions}"
        )
    return notes(spec, layout)


def adapted(lora: Lora, layout: Layout) -> list[str]:
    """Names of the layers that get an adapter; raises InputError if there are none."""
    try:
        found = target_modules.wanted(lora.target_modules, layout.candidates(lora))
    except InputError as error:
        if layout.reserved and _targets(lora, layout.reserved):
            names = ", ".join(sorted({name.rpartition(".")[2] for name in layout.reserved}))
            raise InputError(
                f"{error}; {names}: PEFT puts no adapter on layers of these names, or the model's code would never use it"
            ) from None
        if layout.other and lora.target_modules == "mlp":
            raise InputError(f"{error}; {_weights(layout.other)} are no linear layers and get no adapter") from None
        raise
    chosen = target_modules.in_blocks(found, lora.layers, [*layout.linear, *layout.modules])
    _check_shapes(lora, layout, chosen)
    return chosen


def _check_shapes(lora: Lora, layout: Layout, names: Iterable[str]) -> None:
    """Raises InputError where one of the layers cannot carry an adapter of lora.method."""
    for name in () if lora.method in ("lora", "full") else names:
        outputs, inputs = layout.shapes[name]
        if name in layout.transposed:
            raise InputError(
                f"lora.method {lora.method}: PEFT has it for plain linear layers, and {name} is a Conv1D; use lora"
            )
        four_dimensional = name.endswith(".kv_b_proj")  # of latent attention (DeepSeek)
        if lora.method == "oft" and four_dimensional:
            raise InputError(
                f"lora.method oft: PEFT takes the inputs of {name} for images; name other layers in target_modules, or use lora"
            )
        if lora.method == "oft" and inputs % lora.block_size:
            sizes = [size for size in range(2, inputs + 1) if inputs % size == 0 and size <= 2 * lora.block_size]
            raise InputError(
                f"lora.block_size: {lora.block_size} does not divide the {inputs} inputs of {name}; "
                f"{' or '.join(map(str, sizes[-2:]))} would"
            )
        if lora.method == "shira" and lora.rank * (inputs + outputs) > inputs * outputs:
            most = inputs * outputs // (inputs + outputs)
            raise InputError(
                f"lora.rank: {name} ({outputs} x {inputs}) has fewer weights than shira of rank {lora.rank}; {most} at most"
            )


def _targets(lora: Lora, names: Iterable[str]) -> bool:
    if isinstance(lora.target_modules, str):
        return lora.target_modules in ("mlp", "all-linear")
    return any(target_modules.matches(name, lora.target_modules) for name in names)


# ---------------------------------------------------------------------- notes


def notes(spec: TrialSpec, layout: Layout) -> list[str]:
    """One line for each surprise to a reader of the config: layers that stay in 16 bits or get no adapter."""
    found = [_quantization_note(spec.base, layout)]
    if not spec.is_baseline:
        found += [_experts_note(spec.lora, layout), _blocks_note(spec.lora, layout)]
    return [line for line in found if line]


def _quantization_note(base: Base, layout: Layout) -> str | None:
    every = layout.linear | layout.reserved
    left = {name: size for name, size in every.items() if name not in set(layout.four_bit)} | layout.other
    if base.quantization == "none" or sum(left.values()) < _SMALL * layout.weights:
        return None
    share = sum(every[name] for name in layout.four_bit) / layout.weights
    return (
        f"base.quantization {base.quantization}: {len(layout.four_bit)} of {len(every)} linear layers "
        f"({share:.0%} of the weights) are in 4 bits; {_weights(left)} ({sum(left.values()) / layout.weights:.0%}) "
        f"stay in {base.dtype}"
    )


def _experts_note(lora: Lora, layout: Layout) -> str | None:
    left = {**layout.other, **layout.reserved}
    if lora.target_modules not in ("mlp", "all-linear") or sum(left.values()) < _SMALL * layout.weights:
        return None
    return (
        f"lora.target_modules {lora.target_modules}: {_weights(left)} ({sum(left.values()) / layout.weights:.0%} of the "
        "weights) get no adapter"
    )


def _blocks_note(lora: Lora, layout: Layout) -> str | None:
    names, modules = adapted(lora, layout), [*layout.linear, *layout.modules]
    depth = target_modules.depth(names, modules)
    reached = {int(match[2]) for name in names if (match := target_modules.BLOCK.match(name))}
    missed = sorted(set(target_modules.blocks(lora.layers, depth)) - reached) if reached else []
    if not missed:
        return None
    blocks = {name: int(match[2]) for name in layout.linear if (match := target_modules.BLOCK.match(name))}
    there = {name.rpartition(".")[2] for name, number in blocks.items() if number in missed}
    group = lora.target_modules if isinstance(lora.target_modules, str) else ", ".join(lora.target_modules)
    return (
        f"lora.target_modules {group}: block {', '.join(map(str, missed))} of {depth} gets no adapter; "
        f"its linear layers are {', '.join(sorted(there)) or 'none'}"
    )


def _weights(names: Iterable[str]) -> str:
    """Up to four names, with a star for the block's number."""
    shown = sorted({re.sub(r"\.\d+(?=\.)", ".*", name) for name in names})
    kind = "the experts' " if any("expert" in name for name in shown) else ""
    return kind + ", ".join(shown[:4]) + (f" and {len(shown) - 4} more" if len(shown) > 4 else "")
