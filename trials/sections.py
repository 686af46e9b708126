"""The sections of a TrialSpec, which are also those of a sweep's config: base, data, lora, train, derive.

`eval` is in trials/evaluation_section.py.
"""

import datetime as dt
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from trials.explain import expected, leaves, placed

Share = Annotated[float, Field(ge=0.0, le=1.0)]
MANY = 10**9  # an upper bound for counts, beyond which a loop would not end
Count = Annotated[int, Field(ge=1, le=MANY)]
Block = Annotated[int, Field(ge=0)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]  # the range that NumPy's global generator takes


class Section(BaseModel):
    # frozen, because a key must stay that of its spec; a mistyped key must not be ignored
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _bool_is_no_number(cls, value: Any, info: ValidationInfo) -> Any:
        """Refuses a bool as a number: pydantic would read `true` as 1."""
        kind: Any = cls.model_fields[str(info.field_name)].annotation
        inside = leaves(kind)
        if inside & {int, float} and bool not in inside:
            parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list | tuple) else ()
            for place, part in [((), value), *(((name,), part) for name, part in parts)]:
                if isinstance(part, bool):
                    number = " or ".join(expected(one for one in (int, float) if one in inside))
                    raise placed(place, f"expected {number}, found {str(part).lower()}")
        return value


class Base(Section):
    """The model that is tuned."""

    model: Annotated[str, Field(min_length=1)]
    """A hub id, a folder, or the name of a model in the mirror. Searched in this order: mirror, folder, hub."""
    revision: str | None = None
    """Branch, tag or commit on the hub; None is the default branch."""
    gguf: str | None = None
    """GGUF file of the model's repository or folder, read instead of its safetensors: dequantised, then quantised again."""
    quantization: Literal["nf4", "fp4", "none"] = "nf4"
    """Type of the base's weights: 4 bits as in QLoRA, or unchanged."""
    double_quantization: bool = True
    """Quantise the quantisation constants as well (QLoRA, arXiv 2305.14314, section 3)."""
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto"
    """Type of the unquantised weights and of the arithmetic. `auto` is float16 on GPUs without bfloat16 units and bfloat16
    elsewhere. It is resolved when a file is read: a key holds the type itself."""
    content: str | None = None
    """Checksum of a local model's files (trials/hub/identity.py), set when a sweep begins. None: not checked."""


class Source(Section):
    """A source of training rows, and how a row becomes a conversation, instruction and response, or text.

    Without any template, the format is recognised by the columns (see trials/data/source_formats.py).
    """

    dataset: str
    """A hub id, a folder, the name of a data set in the mirror, or a local file or pattern of files: .jsonl, .ndjson, .json,
    .csv, .tsv, .parquet and .arrow, also with .gz, .bz2, .xz or .zst. A path that exists is never a pattern."""
    config: str | None = None
    """The data set's configuration ("main" of openai/gsm8k)."""
    split: str = "train"
    """The data set's split."""
    revision: str | None = None
    """Branch, tag or commit on the hub; None is the default branch."""
    files: str | None = None
    """A file or a pattern of files of the data set. Default: the whole data set."""
    messages: str | None = None
    """A Jinja expression over the row's columns, such as "{{messages}}", whose value is the list of messages of a conversation.
    The loss counts the assistant's."""
    context: str | None = None
    """An expression for messages that come before those, which the loss leaves out: a prompt, or a system message."""
    tools: str | None = None
    """An expression for the tools that a conversation may call. Default: the column `tools`, if there is one."""
    instruction: str | None = None
    """A Jinja template over the row's columns. So are input, response and text."""
    input: str = ""
    """What the instruction is about, if anything; empty for none."""
    response: str | None = None
    """What the model shall answer."""
    text: str | None = None
    """For plain text, trained on in full, instead of instruction and response."""

    @property
    def explicit(self) -> bool:
        """Whether it has templates of its own."""
        return any(one is not None for one in (self.messages, self.instruction, self.text))

    @model_validator(mode="after")
    def _one_kind(self) -> "Source":
        pair = (self.instruction is not None, self.response is not None)
        kinds = [self.messages is not None, any(pair), self.text is not None]
        alone = self.messages is None and (self.context, self.tools) != (None, None)
        if sum(kinds) > 1 or any(pair) != all(pair) or (self.input and not any(pair)) or alone:
            raise ValueError(
                "a source has instruction and response (and input), or text alone, or messages (and context, tools), or none "
                "of these if its columns show its format"
            )
        return self


class Replay(Section):
    """Rows that rehearse what the base can do already."""

    source: str | None = None
    """A source by name; `self` is text sampled from the base."""
    share: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    """Share of all training rows."""
    how: Literal["substitute", "add"] = "substitute"
    """`substitute`: replayed rows count among data.samples. `add`: they come on top of data.samples rows of the mix."""
    control: Literal["true", "permuted", "prose"] = "true"
    """Responses of the replayed rows: their own, permuted (the format without the mathematics), or written as prose (the
    mathematics without the format); see trials/data/replay_controls.py. Rows and order stay the same."""

    @model_validator(mode="after")
    def _from_somewhere(self) -> "Replay":
        if self.share > 0 and self.source is None:
            raise ValueError("a share above 0 needs a source, or `self`")
        if self.share > 0 and self.source == "self" and self.control != "true":
            raise ValueError(f"control {self.control} is of solutions; the text of source `self` has none")
        return self


class Data(Section):
    """The training data: `samples` rows, drawn from the sources of `mix` by their shares."""

    samples: Annotated[int, Field(ge=0, le=MANY)]
    """Training rows of an epoch; 0 is the baseline."""
    mix: dict[str, Share] = Field(min_length=1)
    """Share by source. The shares add up to 1."""
    sources: dict[str, Source] = {}
    """Sources besides the built-in ones."""
    replay: Replay = Replay()
    """Rows that are trained on beside those of the mix, so that the model keeps what it can do."""
    template: Literal["alpaca", "chat", "plain"] = "alpaca"
    """`chat` is the tokenizer's chat template."""
    loss_on: Literal["response", "everything"] = "response"
    """The tokens that the loss counts."""
    max_overlap: Share = 0.01
    """Largest allowed share of a source's rows that have 13 consecutive words in common with a test document; above it the
    trial is refused. Such rows are never trained on."""
    max_length: Annotated[int, Field(ge=16, le=MANY)] = 512
    """Tokens. A longer row is truncated."""
    seed: Seed = 0
    """Seed of the choice and the order of the rows."""
    content: dict[str, str] = {}
    """By source: checksum of its local files or its commit on the hub, set when a sweep begins."""
    date: dt.date | None = None
    """The date in a chat template's output. Set when a sweep begins, for a template that has one."""

    @field_validator("mix")
    @classmethod
    def _shares_make_one(cls, mix: dict[str, float]) -> dict[str, float]:
        if abs(sum(mix.values()) - 1.0) > 1e-6:  # 1/3 has finitely many digits in a file
            raise ValueError(f"the shares add up to {sum(mix.values()):g}, they must add up to 1")
        return mix

    @model_validator(mode="after")
    def _replayed_once(self) -> "Data":
        if self.replay.share > 0 and self.mix.get(self.replay.source or "", 0.0) > 0:
            raise ValueError(f"{self.replay.source!r} is in the mix and replayed; give its share in one of the two places")
        return self

    @property
    def shares(self) -> dict[str, float]:
        """Shares of all training rows by source, replay included. They add up to 1."""
        kept = 1.0 - self.replay.share
        # rounded, so that 0.8 * 0.5 is the 0.4 of a spec that names it
        shares = {source: round(share * kept, 12) for source, share in self.mix.items() if share > 0}
        return shares | ({self.replay.source: self.replay.share} if self.replay.source and self.replay.share > 0 else {})

    @property
    def rows(self) -> int:
        """Rows of an epoch, replay included."""
        return round(self.samples / (1.0 - self.replay.share)) if self.replay.how == "add" else self.samples


class Lora(Section):
    """The adapter (PEFT)."""

    method: Literal["lora", "oft", "shira", "full"] = "lora"
    """`lora` adds B A to a layer's weights; `oft` rotates its inputs (arXiv 2306.07280); `shira` trains single weights at
    random places (arXiv 2406.13175); `full` trains all of its weights, for small bases."""
    rank: Annotated[int, Field(ge=1, le=2**16)] = 8
    """Rank of the update B A. `shira` trains as many weights as `lora` of this rank; the others have none."""
    alpha: Annotated[float, Field(gt=0, le=MANY)] = 16
    """The update is scaled by alpha / rank. For `lora` only."""
    block_size: Annotated[int, Field(ge=2, le=2**12)] = 32
    """Inputs that rotate together, for `oft` only. It divides the inputs of each layer."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Dropout on the adapter's input."""
    target_modules: Literal["qkv", "attention", "mlp", "all-linear"] | Annotated[tuple[str, ...], Field(min_length=1)] = "qkv"
    """A group of layers, independent of the architecture's names for them, or layer names. The paper uses `qkv`."""
    layers: Literal["all", "first-third", "middle-third", "last-third"] | Annotated[tuple[Block, ...], Field(min_length=1)] = (
        "all"
    )
    """The blocks that get an adapter, numbered from 0."""
    use_rslora: bool = False
    """Scales by alpha / sqrt(rank) instead of alpha / rank (arXiv 2312.03732)."""
    use_dora: bool = False
    """Weight-decomposed LoRA (arXiv 2402.09353)."""
    init: Literal["default", "gaussian", "orthogonal", "eva", "loftq", "pissa", "olora", "corda"] = "default"
    """Initialisation of the adapter. pissa, olora and corda start from a part of the base's weights. A frozen second adapter
    subtracts that part, so the base's weights stay unchanged."""

    @model_validator(mode="after")
    def _method_fits(self) -> "Lora":
        if self.method != "lora":
            of_lora = {name: getattr(self, name) for name in ("use_dora", "use_rslora", "dropout")}
            of_lora["init"] = self.init if self.init != "default" else None
            for name, value in of_lora.items():
                if value:
                    raise ValueError(f"{name} is a setting of method lora, and method is {self.method}")
        return self

    @model_validator(mode="after")
    def _init_fits(self) -> "Lora":
        if self.use_dora and self.converted:
            raise ValueError(f"init {self.init} begins at the base's weights, which use_dora rescales; choose one of the two")
        if self.init == "orthogonal" and self.rank % 2:  # PEFT splits the rank into two halves
            raise ValueError(f"init orthogonal needs an even rank, but got {self.rank}")
        return self

    @property
    def unread(self) -> tuple[str, ...]:
        """The settings that the method does not read."""
        return {
            "lora": ("block_size",),
            "oft": ("rank", "alpha"),
            "shira": ("alpha", "block_size"),
            "full": ("rank", "alpha", "block_size"),
        }[self.method]

    @property
    def converted(self) -> bool:
        """Whether the adapter starts from a part of the base's weights, which a frozen adapter of the same rank subtracts."""
        return self.init in ("pissa", "olora", "corda")


class Train(Section):
    learning_rate: Annotated[float, Field(gt=0, le=1000)] = 2e-4
    """Highest learning rate of the schedule."""
    schedule: Literal["constant", "cosine", "linear", "wsd"] = "constant"
    """After a linear warm-up. `wsd` (warm-up, stable, decay) is constant, then falls linearly to 0 over the last `decay` of
    the steps."""
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.03
    """Share of the steps."""
    decay: Annotated[float, Field(gt=0, le=1)] = 0.2
    """Share of the steps, for wsd only."""
    epochs: Count = 1
    """Passes over the rows."""
    batch_size: Count = 16
    """Rows per optimiser step."""
    micro_batch_size: Count = 16
    """Rows in memory at once. Gradients of a batch are accumulated."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """AdamW's, on the adapter's weights; it draws a `full` update towards the base."""
    max_grad_norm: Annotated[float, Field(gt=0)] = 1.0
    """Gradients are clipped to this norm."""
    neftune: Annotated[float, Field(ge=0)] = 0.0
    """Scale of the noise on the embeddings (arXiv 2310.05914); 0 is off."""
    loss: Literal["nll", "dft", "eaft", "masked"] = "nll"
    """Weights of the tokens (trials/training/token_weights.py): `nll` all alike; `dft` the token's probability (arXiv
    2508.05629); `eaft` the prediction's entropy (arXiv 2601.02151); `masked` leaves out what the base finds improbable (arXiv
    2501.14315)."""
    mask_above: Annotated[float, Field(gt=1)] = 2.5
    """For `masked` only: tokens whose perplexity under the base is above this are left out."""
    kl: Annotated[float, Field(ge=0)] = 0.0
    """Weight of KL(base || tuned) in the loss, in nats per token that the loss counts."""
    l2: Annotated[float, Field(ge=0)] = 0.0
    """Weight in the loss of the squared Frobenius norm of the adapter's update."""
    stop_kl: Annotated[float, Field(gt=0)] | None = None
    """Training stops when KL(base || tuned) on held-out rows exceeds this; nats per token."""
    backend: Literal["transformers", "unsloth"] = "transformers"
    """Library that trains."""
    seed: Seed = 0
    """Seed of the adapter's initial weights and of dropout."""

    @model_validator(mode="after")
    def _batch_divides(self) -> "Train":
        if self.batch_size % min(self.micro_batch_size, self.batch_size):
            raise ValueError(f"batch_size {self.batch_size} is not a multiple of micro_batch_size {self.micro_batch_size}")
        return self

    @model_validator(mode="after")
    def _shares_fit(self) -> "Train":
        if self.schedule == "wsd" and self.warmup + self.decay > 1:
            raise ValueError(
                f"warmup {self.warmup:g} and decay {self.decay:g} are shares of the same steps, and add up to more than 1"
            )
        return self


class Derive(Section):
    """A change to a trained adapter that needs no training of its own."""

    samples: Count | None = None
    """The adapter as it was after this many rows."""
    rank: Annotated[int, Field(ge=1)] | None = None
    """Truncated to this rank: the best approximation, by SVD."""
    strength: Annotated[float, Field(ge=0.0, le=1.25)] = 1.0
    """Factor on the adapter's update."""
    shallow: Annotated[float, Field(ge=0.0, lt=1.0)] | None = None
    """Factor on the update of the first block, which rises linearly to 1 at the last one (LiNeS, arXiv 2410.17146)."""
    off: Literal["q", "k", "v", "first-third", "middle-third", "last-third"] | None = None
    """The part that is switched off: the query, key or value projections, or a third of the blocks."""
