"""TrialSpec: everything that a trial's numbers depend on, frozen, and the key that names it.

The sections are those of the sweep's config; `python -m trials` reads a file that holds just these.
"""

import hashlib
import json
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

SCHEMA = 1  # part of every key: raise it when the same spec would give other numbers

Share = Annotated[float, Field(ge=0.0, le=1.0)]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)


class Base(Section):
    """The model that is tuned."""

    model: str
    """A hub id, a folder, or the name of a model in the mirror."""
    revision: str | None = None
    """Branch, tag or commit on the hub; None is the default branch."""
    quantization: Literal["nf4", "fp4", "none"] = "nf4"
    double_quantization: bool = True
    """Quantise the quantisation constants as well (QLoRA, arXiv 2305.14314, section 3)."""
    dtype: Literal["bfloat16", "float16", "float32"] = "bfloat16"
    """Of the weights that stay unquantised, and of the arithmetic."""


class Source(Section):
    """Where a training source's rows come from and what is read from them."""

    dataset: str
    """A hub id, a folder, or the name of a data set in the mirror."""
    config: str | None = None
    """The data set's configuration ("main" of openai/gsm8k)."""
    split: str = "train"
    instruction: str
    """Jinja template over the row's columns, as are input and response."""
    input: str = ""
    response: str


class Data(Section):
    """What the model is tuned on: `samples` rows, drawn from the sources of `mix` in their shares."""

    samples: Annotated[int, Field(ge=0)]
    mix: dict[str, Share] = Field(min_length=1)
    """Share of each source; together 1."""
    sources: dict[str, Source] = {}
    """Sources beside the built-in ones."""
    template: Literal["alpaca"] = "alpaca"
    loss_on: Literal["response", "everything"] = "response"
    max_length: Annotated[int, Field(ge=16)] = 512
    """Tokens; a longer row is cut at its end."""
    seed: int = 0

    @field_validator("mix")
    @classmethod
    def _shares_make_one(cls, mix: dict[str, float]) -> dict[str, float]:
        if abs(sum(mix.values()) - 1.0) > 1e-6:
            raise ValueError(f"the shares add up to {sum(mix.values()):g}, they must add up to 1")
        return mix


class Lora(Section):
    """The adapter (PEFT)."""

    rank: Annotated[int, Field(ge=1)] = 8
    alpha: Annotated[float, Field(gt=0)] = 16
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    target_modules: tuple[str, ...] = Field(default=("q_proj", "k_proj", "v_proj"), min_length=1)
    use_dora: bool = False
    """Weight-decomposed LoRA (arXiv 2402.09353)."""


class Train(Section):
    learning_rate: Annotated[float, Field(gt=0)] = 2e-4
    schedule: Literal["constant", "cosine", "linear"] = "constant"
    """After a linear warm-up."""
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.03
    """Share of the steps."""
    epochs: Annotated[int, Field(ge=1)] = 1
    batch_size: Annotated[int, Field(ge=1)] = 16
    """Rows per optimiser step."""
    micro_batch_size: Annotated[int, Field(ge=1)] = 16
    """Rows in memory at once; the rest of the batch is accumulated."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    max_grad_norm: Annotated[float, Field(gt=0)] = 1.0
    seed: int = 0
    """Of the adapter's initial weights and of dropout."""

    @model_validator(mode="after")
    def _batch_divides(self) -> "Train":
        if self.batch_size % min(self.micro_batch_size, self.batch_size):
            raise ValueError(f"batch_size {self.batch_size} is not a multiple of micro_batch_size {self.micro_batch_size}")
        return self


class Evaluation(Section):
    """One role's benchmark: lm-eval tasks, pooled over their documents."""

    task: str | Annotated[tuple[str, ...], Field(min_length=1)]
    metric: str
    filter: str = "none"
    shots: Annotated[int, Field(ge=0)] | None = None
    """Few-shot examples; None is the task's own number."""
    documents: Annotated[int, Field(ge=1)] | None = None
    """Size of a seeded sample; None evaluates all."""
    seed: int = 0
    batch_size: Annotated[int, Field(ge=1)] = 32

    @property
    def tasks(self) -> tuple[str, ...]:
        return (self.task,) if isinstance(self.task, str) else self.task


class TrialSpec(Section):
    """One trial; its numbers are a function of this alone."""

    base: Base
    data: Data
    lora: Lora = Lora()
    train: Train = Train()
    eval: dict[str, Evaluation] = Field(min_length=1)
    """Role -> benchmark."""

    @field_validator("eval")
    @classmethod
    def _plain_roles(cls, roles: dict[str, Evaluation]) -> dict[str, Evaluation]:
        for role in roles:
            if not role.isidentifier():
                raise ValueError(f"a role is a plain word, but got {role!r}")
        return roles

    def baseline(self) -> "TrialSpec":
        """The same base, quantisation and evaluation with nothing trained."""
        return self.model_copy(update={"data": self.data.model_copy(update={"samples": 0})})

    @property
    def is_baseline(self) -> bool:
        return self.data.samples == 0

    def canonical(self) -> dict[str, Any]:
        """The parts that the numbers depend on: nothing of training where nothing is trained, no source with share 0."""
        parts = self.model_dump(mode="json")
        if self.is_baseline:
            del parts["data"], parts["lora"], parts["train"]
        else:
            mix = {source: share for source, share in self.data.mix.items() if share > 0}
            parts["data"]["mix"] = mix
            parts["data"]["sources"] = {name: value for name, value in parts["data"]["sources"].items() if name in mix}
        return parts

    @property
    def key(self) -> str:
        """16 hexadecimal digits."""
        text = json.dumps({"schema": SCHEMA, **self.canonical()}, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]
