"""The sizes of a model's layers, from its config.json alone: no weights, no torch."""

import functools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import huggingface_hub

from trials.adapters.target_modules import blocks, chosen
from trials.errors import InputError
from trials.hub.hub import Hub
from trials.spec import Base, Lora, TrialSpec

_LLAMA_LIKE = ("llama", "mistral", "qwen2", "qwen3", "gemma", "gemma3_text", "olmo", "olmo2", "smollm3")


@dataclass(frozen=True)
class Shape:
    """A Llama-like model: gated MLP, grouped attention, no biases worth counting."""

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocab: int
    tied: bool

    @property
    def projections(self) -> dict[str, tuple[int, int]]:
        """(inputs, outputs) of a block's linear layers, by their names in lora.target_modules."""
        attended, shared = self.heads * self.head_dim, self.kv_heads * self.head_dim
        return {
            "q_proj": (self.hidden, attended),
            "k_proj": (self.hidden, shared),
            "v_proj": (self.hidden, shared),
            "o_proj": (attended, self.hidden),
            "gate_proj": (self.hidden, self.intermediate),
            "up_proj": (self.hidden, self.intermediate),
            "down_proj": (self.intermediate, self.hidden),
        }

    @property
    def linear(self) -> int:
        """Weights of all blocks' linear layers, which 4-bit quantisation packs."""
        return self.layers * sum(inputs * outputs for inputs, outputs in self.projections.values())

    @property
    def head(self) -> int:
        return self.vocab * self.hidden

    @property
    def rest(self) -> int:
        """Weights that stay in base.dtype: embedding, untied head, norms."""
        return self.head * (1 if self.tied else 2) + (2 * self.layers + 1) * self.hidden

    def targets(self, lora: Lora) -> list[tuple[int, int]]:
        """(inputs, outputs) of a block's layers that get an adapter."""
        return [self.projections[name] for name in chosen(lora.target_modules, self.projections)]

    def adapter(self, spec: TrialSpec) -> int:
        """Trained weights of the trial's adapter."""
        lora = spec.lora
        sizes = self.targets(lora)
        if lora.method == "oft":  # half a matrix without its diagonal for each block of inputs
            weights = sum(inputs for inputs, _ in sizes) * (lora.block_size - 1) // 2
        elif lora.method == "full":
            weights = sum(inputs * outputs for inputs, outputs in sizes)
        else:
            magnitudes = sum(outputs for _, outputs in sizes) if lora.use_dora else 0
            weights = lora.rank * sum(map(sum, sizes)) + magnitudes
        return len(blocks(lora.layers, self.layers)) * weights

    def begun(self, spec: TrialSpec) -> int:
        """Frozen weights of the adapter: what PiSSA, OLoRA and CorDA take from the base, and a full update's identities."""
        if spec.lora.method == "full":
            return len(blocks(spec.lora.layers, self.layers)) * sum(inputs**2 for inputs, _ in self.targets(spec.lora))
        return self.adapter(spec) if spec.lora.converted else 0


def read_shape(base: Base, hub: Hub) -> Shape:
    """Reads the model's config.json. Raises InputError if there is none, or for another architecture."""
    folder = Path(hub.locate(base.model))
    try:
        path = folder / "config.json" if folder.is_dir() else _downloaded(base.model, base.revision)
        if isinstance(path, Exception):
            raise path
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise hub.missing("base.model", base.model, error) from error
    return shape_of(base.model, found)


@functools.cache
def _downloaded(model: str, revision: str | None) -> Path | Exception:
    """config.json of a model on the hub, or the error."""
    # errors are cached too: without a network each try takes half a minute, and the plans of all ablations try
    try:
        return Path(huggingface_hub.hf_hub_download(model, "config.json", revision=revision, etag_timeout=3))
    except (OSError, ValueError) as error:
        return error


def shape_of(name: str, found: dict[str, Any]) -> Shape:
    kind = found.get("model_type")
    if kind not in _LLAMA_LIKE:
        raise InputError(f"{name}: costs are counted for {', '.join(_LLAMA_LIKE)}; this is {kind}")
    heads, hidden = found["num_attention_heads"], found["hidden_size"]
    return Shape(
        layers=found["num_hidden_layers"],
        hidden=hidden,
        heads=heads,
        kv_heads=found.get("num_key_value_heads") or heads,
        head_dim=found.get("head_dim") or hidden // heads,
        intermediate=found["intermediate_size"],
        vocab=found["vocab_size"],
        tied=found.get("tie_word_embeddings", kind.startswith("gemma")),
    )
