"""The modules of a base and the special tokens of its tokenizer, as data."""

from dataclasses import dataclass, field

from trials.spec import Lora


@dataclass(frozen=True)
class Tokens:
    """The tokenizer's special tokens, as the base can use them."""

    end: str | None
    beyond: list[str]
    """Tokens with ids beyond the embedding, except padding, which is masked."""
    fed: list[str]
    """The tokens beyond the embedding that the tokenizer adds to every text."""
    chat: list[str]
    """The tokens beyond the embedding that the chat template writes."""
    longest: int
    """The maximum number of tokens that an evaluation feeds the model, prompt and response together."""


@dataclass(frozen=True)
class Layout:
    """The modules of a base."""

    linear: dict[str, int]
    """Number of weights of each layer that can carry an adapter, by name, without the head."""
    shapes: dict[str, list[int]]
    """[outputs, inputs] of these layers, of the head and of the reserved layers."""
    transposed: list[str]
    """Those of them that store [inputs, outputs], as GPT-2's Conv1D does."""
    head: list[str]
    """Name of the head if it can carry an adapter. No group contains it; a list of names may."""
    four_bit: list[str]
    """Linear layers that a 4-bit quantisation replaces."""
    reserved: dict[str, int]
    """Linear layers without an adapter: PEFT refuses their names or takes them for fused experts, or the model's code would
    bypass the adapter."""
    other: dict[str, int]
    """Matrices outside of linear layers, such as fused experts: they get no adapter and stay in 16 bits."""
    modules: list[str]
    """Names of all other modules."""
    weights: int
    """Number of weights of the whole model."""
    rows: int
    """Number of rows of the embedding."""
    positions: int | None
    """The maximum length that the position table allows; None without a table."""
    failures: dict[str, str] = field(default_factory=dict)
    """Why the architecture fails, by "training" and "evaluation" (see trials/models/rehearsal.py)."""

    def candidates(self, lora: Lora) -> list[str]:
        """The layers among which lora.target_modules chooses."""
        return [*self.linear, *([] if isinstance(lora.target_modules, str) else self.head)]
