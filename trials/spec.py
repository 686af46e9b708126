"""TrialSpec: everything that a trial's numbers depend on, frozen, and the key that names it.

The sections are those of the sweep's config; `python -m trials` reads a file that holds just these.
"""

import datetime as dt
import hashlib
import json
import math
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from trials import benchmark_presets
from trials.explain import expected, leaves, placed

SCHEMA = 2  # part of every key: raise it when the same spec would give other numbers

Share = Annotated[float, Field(ge=0.0, le=1.0)]


_MANY = 10**9  # more than any count here can be; beyond it a loop would never end
Count = Annotated[int, Field(ge=1, le=_MANY)]
Block = Annotated[int, Field(ge=0)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]  # NumPy's global generator takes no other


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _truth_is_no_number(cls, value: Any, info: ValidationInfo) -> Any:
        """pydantic would read `true` as 1."""
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
    """A hub id, a folder, or the name of a model in the mirror; the mirror comes first, then the folder, then the hub."""
    revision: str | None = None
    """Branch, tag or commit on the hub; None is the default branch."""
    gguf: str | None = None
    """File of the model's repository or folder to read instead of its safetensors; dequantised, then quantised as asked."""
    quantization: Literal["nf4", "fp4", "none"] = "nf4"
    double_quantization: bool = True
    """Quantise the quantisation constants as well (QLoRA, arXiv 2305.14314, section 3)."""
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto"
    """Of the weights that stay unquantised, and of the arithmetic. `auto` is float16 on GPUs without units for bfloat16 and
    bfloat16 elsewhere; it is settled when a file is read, so that a key holds the type itself."""
    content: str | None = None
    """Checksum of a local model's files (trials/hub/identity.py), set when a sweep begins; None does not check them."""


class Source(Section):
    """Where a training source's rows come from and what is read from them."""

    dataset: str
    """A hub id, a folder, the name of a data set in the mirror, or a local file or pattern of files: .jsonl, .ndjson, .json,
    .csv and .tsv, also with .gz, .bz2, .xz or .zst, .parquet, .arrow. A path that exists is never a pattern."""
    config: str | None = None
    """The data set's configuration ("main" of openai/gsm8k)."""
    split: str = "train"
    revision: str | None = None
    """Branch, tag or commit on the hub; None is the default branch."""
    files: str | None = None
    """The one file, or the pattern of files, to read of a data set that is too large to fetch whole."""
    instruction: str | None = None
    """Jinja template over the row's columns, as are input, response and text."""
    input: str = ""
    response: str | None = None
    text: str | None = None
    """Of rows that are plain text, all of it learnt, instead of instruction and response."""

    @model_validator(mode="after")
    def _text_or_instruction(self) -> "Source":
        pair = (self.instruction is not None, self.response is not None)
        if pair != ((True, True) if self.text is None else (False, False)) or (self.text is not None and self.input):
            raise ValueError("a source has instruction and response (and input), or text alone")
        return self


class Replay(Section):
    """Rows that keep what the base could do in the training."""

    source: str | None = None
    """A source by name; `self` is text that the base has sampled from itself."""
    share: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    """Of all rows that are trained on."""
    how: Literal["substitute", "add"] = "substitute"
    """`substitute`: they take places among data.samples; `add`: they come on top, and data.samples rows of the mix stay."""
    control: Literal["true", "permuted", "prose"] = "true"
    """The replayed rows' responses: their own, each other's (the format without the mathematics), or written as prose (the
    mathematics without the format); see trials/data/replay_controls.py. The rows and their order are the same."""

    @model_validator(mode="after")
    def _from_somewhere(self) -> "Replay":
        if self.share > 0 and self.source is None:
            raise ValueError("a share above 0 needs a source, or `self`")
        if self.share > 0 and self.source == "self" and self.control != "true":
            raise ValueError(f"control {self.control} is of solutions; the text of source `self` has none")
        return self


class Data(Section):
    """What the model is tuned on: `samples` rows, drawn from the sources of `mix` in their shares."""

    samples: Annotated[int, Field(ge=0, le=_MANY)]
    mix: dict[str, Share] = Field(min_length=1)
    """Share of each source; together 1."""
    sources: dict[str, Source] = {}
    """Sources beside the built-in ones."""
    replay: Replay = Replay()
    template: Literal["alpaca", "chat", "plain"] = "alpaca"
    """`chat` is the tokenizer's own."""
    loss_on: Literal["response", "everything"] = "response"
    max_overlap: Share = 0.01
    """Of a source's rows: beyond it so many share 13 words in a row with a test document that the trial is refused. Rows that
    do are never trained on."""
    max_length: Annotated[int, Field(ge=16, le=_MANY)] = 512
    """Tokens; a longer row is cut at its end."""
    seed: Seed = 0
    content: dict[str, str] = {}
    """By source: checksum of its local files, or its commit on the hub, set when a sweep begins."""
    date: dt.date | None = None
    """The date that a chat template writes; set when a sweep begins, for a template that writes one."""

    @field_validator("mix")
    @classmethod
    def _shares_make_one(cls, mix: dict[str, float]) -> dict[str, float]:
        if abs(sum(mix.values()) - 1.0) > 1e-6:
            raise ValueError(f"the shares add up to {sum(mix.values()):g}, they must add up to 1")
        return mix

    @model_validator(mode="after")
    def _replayed_once(self) -> "Data":
        if self.replay.share > 0 and self.mix.get(self.replay.source or "", 0.0) > 0:
            raise ValueError(f"{self.replay.source!r} is in the mix and replayed; give its share in one of the two places")
        return self

    @property
    def shares(self) -> dict[str, float]:
        """Of all rows that are trained on, by source, replay included; together 1."""
        kept = 1.0 - self.replay.share
        shares = {source: round(share * kept, 12) for source, share in self.mix.items() if share > 0}
        return shares | ({self.replay.source: self.replay.share} if self.replay.source and self.replay.share > 0 else {})

    @property
    def rows(self) -> int:
        """Of an epoch, replay included."""
        return round(self.samples / (1.0 - self.replay.share)) if self.replay.how == "add" else self.samples


class Lora(Section):
    """The adapter (PEFT)."""

    rank: Annotated[int, Field(ge=1, le=2**16)] = 8
    alpha: Annotated[float, Field(gt=0, le=_MANY)] = 16
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    target_modules: Literal["qkv", "attention", "mlp", "all-linear"] | Annotated[tuple[str, ...], Field(min_length=1)] = "qkv"
    """A group, whatever the architecture calls its layers, or their names. `qkv` is the paper's choice."""
    layers: Literal["all", "first-third", "middle-third", "last-third"] | Annotated[tuple[Block, ...], Field(min_length=1)] = (
        "all"
    )
    """Which blocks get an adapter; numbers count from 0."""
    use_rslora: bool = False
    """Scale by alpha / sqrt(rank) instead of alpha / rank (arXiv 2312.03732)."""
    use_dora: bool = False
    """Weight-decomposed LoRA (arXiv 2402.09353)."""
    init: Literal["default", "gaussian", "orthogonal", "eva", "loftq", "pissa", "olora", "corda"] = "default"
    """Of the adapter's weights. pissa, olora and corda begin at a part of the base's own weights; that part is taken off again
    by a frozen second adapter, so that the base stays the base."""

    @model_validator(mode="after")
    def _can_begin(self) -> "Lora":
        if self.use_dora and self.converted:
            raise ValueError(f"init {self.init} begins at the base's weights, which use_dora rescales; choose one of the two")
        if self.init == "orthogonal" and self.rank % 2:
            raise ValueError(f"init orthogonal needs an even rank, but got {self.rank}")
        return self

    @property
    def converted(self) -> bool:
        """Whether the adapter begins at a part of the base, and a frozen one as large takes that part off."""
        return self.init in ("pissa", "olora", "corda")


class Train(Section):
    learning_rate: Annotated[float, Field(gt=0, le=1000)] = 2e-4
    schedule: Literal["constant", "cosine", "linear", "wsd"] = "constant"
    """After a linear warm-up. `wsd` (warm-up, stable, decay) stays constant until the last `decay` of the steps, and goes down
    to 0 in a straight line over these."""
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.03
    """Share of the steps."""
    decay: Annotated[float, Field(gt=0, le=1)] = 0.2
    """Share of the steps; of wsd alone."""
    epochs: Count = 1
    batch_size: Count = 16
    """Rows per optimiser step."""
    micro_batch_size: Count = 16
    """Rows in memory at once; the rest of the batch is accumulated."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    max_grad_norm: Annotated[float, Field(gt=0)] = 1.0
    neftune: Annotated[float, Field(ge=0)] = 0.0
    """Size of the noise on the embeddings (arXiv 2310.05914); 0 is none."""
    kl: Annotated[float, Field(ge=0)] = 0.0
    """Weight in the loss of KL(base || tuned), nats per token that the loss counts."""
    l2: Annotated[float, Field(ge=0)] = 0.0
    """Weight in the loss of the squared Frobenius norm of what the adapter adds to the base's weights."""
    stop_kl: Annotated[float, Field(gt=0)] | None = None
    """Training ends once KL(base || tuned) on held-out rows is beyond this; nats per token."""
    backend: Literal["transformers", "unsloth"] = "transformers"
    seed: Seed = 0
    """Of the adapter's initial weights and of dropout."""

    @model_validator(mode="after")
    def _batch_divides(self) -> "Train":
        if self.batch_size % min(self.micro_batch_size, self.batch_size):
            raise ValueError(f"batch_size {self.batch_size} is not a multiple of micro_batch_size {self.micro_batch_size}")
        return self

    @model_validator(mode="after")
    def _parts_fit(self) -> "Train":
        if self.schedule == "wsd" and self.warmup + self.decay > 1:
            raise ValueError(
                f"warmup {self.warmup:g} and decay {self.decay:g} are shares of the same steps, and add up to more than 1"
            )
        return self


_STOCK = "hf"
"""What the keys call every engine, and the records of before there were two call lm-eval's own."""


class Evaluation(Section):
    """One role's benchmark: lm-eval tasks, pooled over their documents.

    A preset's name, or {preset: NAME} with fields beside it, stands for the preset's fields (see trials/benchmark_presets.py).
    """

    task: str | Annotated[tuple[str, ...], Field(min_length=1)]
    metric: str
    filter: str = "none"
    flexible: str | None = None
    """Of a generated task: the laxer filter that finds an answer without its marker."""
    marker: str | None = None
    """Of a generated task: the text that an answer in the trained format carries before its final result."""
    shots: Annotated[int, Field(ge=0, le=_MANY)] | None = None
    """Few-shot examples; None is the task's own number."""
    fewshot: Literal["first_n", "stock", "drawn"] | None = None
    """The first rows for every document, as the task has it, or drawn for each document, whatever the task has: some take the
    first rows themselves, and know no seed. None is `first_n` for a sample of the documents, whose draws would not be those of
    a full run, and `stock` for all."""
    fewshot_seed: Seed = 1234
    """Of the draws; lm-eval's default."""
    documents: Count | None = None
    """Size of a seeded sample; None evaluates all."""
    seed: Seed = 0
    batch_size: Count = 32
    engine: Literal["exact", "hflm"] = "exact"
    """Who runs the model: this project's engine, or lm-eval's own HFLM. The numbers are the same, so the key does not tell."""
    content: dict[str, str] = {}
    """By data set of the tasks: as data.content."""

    @model_validator(mode="before")
    @classmethod
    def _preset(cls, given: Any) -> Any:
        return benchmark_presets.expand(given)

    @field_validator("engine", mode="before")
    @classmethod
    def _renamed(cls, name: Any) -> Any:
        return "hflm" if name == _STOCK else name

    @property
    def sampler(self) -> Literal["first_n", "stock", "drawn"]:
        """`fewshot`, decided."""
        return self.fewshot or ("stock" if self.documents is None else "first_n")

    @property
    def tasks(self) -> tuple[str, ...]:
        return (self.task,) if isinstance(self.task, str) else self.task


class Derive(Section):
    """What is made of a trained adapter without another training."""

    samples: Count | None = None
    """The adapter as it stood after so many rows."""
    rank: Annotated[int, Field(ge=1)] | None = None
    """Its best approximation of this rank (SVD)."""
    strength: Annotated[float, Field(ge=0.0, le=1.25)] = 1.0
    """Factor on all that the adapter adds."""
    off: Literal["q", "k", "v", "first-third", "middle-third", "last-third"] | None = None
    """Where it is switched off: the query, key or value projections, or a third of the blocks. The rest stays as it is."""


def plain_roles(roles: dict[str, Evaluation]) -> dict[str, Evaluation]:
    for role in roles:
        if not role.isidentifier():
            raise ValueError(f"a role is a plain word, but got {role!r}")
        if role == "learning":
            raise ValueError("the role 'learning' names what the training did; call the benchmark's role otherwise")
    return roles


class TrialSpec(Section):
    """One trial; its numbers are a function of this alone."""

    base: Base
    data: Data
    lora: Lora = Lora()
    train: Train = Train()
    eval: dict[str, Evaluation] = Field(min_length=1)
    """Role -> benchmark."""
    derive: Derive = Derive()

    @field_validator("eval")
    @classmethod
    def _plain_roles(cls, roles: dict[str, Evaluation]) -> dict[str, Evaluation]:
        return plain_roles(roles)

    @model_validator(mode="after")
    def _update_is_a_product(self) -> "TrialSpec":
        if self.lora.use_dora and self.train.l2 > 0:
            raise ValueError("train.l2 is the size of B @ A, which is not what lora.use_dora adds to the base; use train.kl")
        return self

    @model_validator(mode="after")
    def _has_an_error_to_begin_at(self) -> "TrialSpec":
        if self.lora.init == "loftq" and (self.base.quantization == "none" or self.base.gguf is not None):
            has = "base.gguf has none" if self.base.gguf is not None else "base.quantization is none"
            raise ValueError(f"lora.init loftq compares unquantised safetensors with their quantisation, and {has}")
        return self

    @model_validator(mode="after")
    def _derivable(self) -> "TrialSpec":
        derive, train, samples = self.derive, self.train, self.data.rows
        self._check_off()
        if derive.rank is not None and self.lora.use_dora:
            raise ValueError("derive.rank does not go with lora.use_dora: a DoRA adapter has no singular values to cut off")
        if derive.rank is not None and derive.rank > self.lora.rank:
            raise ValueError(f"derive.rank {derive.rank} is above lora.rank {self.lora.rank}")
        if derive.samples is None:
            return self
        if train.schedule in ("cosine", "linear") or train.epochs > 1:
            raise ValueError(
                f"derive.samples needs a constant or wsd schedule and one epoch, but train.schedule is {train.schedule} with "
                f"{train.epochs} epochs: the adapter after {derive.samples} rows is not that of a training with so many"
            )
        if train.stop_kl is not None:
            raise ValueError("derive.samples does not go with train.stop_kl, which may end the training before so many rows")
        warm = math.ceil(math.ceil(samples / train.batch_size) * train.warmup) * train.batch_size
        if derive.samples <= warm:
            raise ValueError(f"derive.samples {derive.samples} is within the warm-up, the first {warm} rows of this training")
        steady = samples if train.schedule == "constant" else math.floor(samples * (1 - train.decay))
        if derive.samples % train.batch_size:
            raise ValueError(f"derive.samples {derive.samples} is no multiple of train.batch_size {train.batch_size}")
        if derive.samples > steady:
            raise ValueError(f"derive.samples {derive.samples} is beyond the {steady} rows that are trained at a constant rate")
        return self

    def _check_off(self) -> None:
        """As far as it can be told without the base; targets.part tells the rest."""
        off, modules, layers = self.derive.off, self.lora.target_modules, self.lora.layers
        if off in ("q", "k", "v"):
            if modules == "mlp":
                raise ValueError(f"derive.off {off} does not go with lora.target_modules mlp: the adapter has nothing there")
        elif off is not None and isinstance(layers, str) and layers not in ("all", off):
            raise ValueError(f"derive.off {off} does not go with lora.layers {layers}: the adapter has nothing there")

    def baseline(self) -> "TrialSpec":
        """The same base, quantisation and evaluation with nothing trained."""
        data = self.data.model_copy(update={"samples": 0})
        return self.model_copy(update={"data": data, "derive": Derive()})

    @property
    def parent(self) -> "TrialSpec | None":
        """The trial whose adapter this one is made of; None for one that trains its own."""
        if self.is_baseline or self.derive == Derive():
            return None
        return self.model_copy(update={"derive": Derive()})

    @property
    def is_baseline(self) -> bool:
        return self.data.samples == 0

    def canonical(self) -> dict[str, Any]:
        """The parts that the numbers depend on: nothing of training where nothing is trained, no source with share 0.

        Added or substituted, a replay of as many rows among as many is the same one.
        """
        parts = self.model_dump(mode="json")
        _drop_unpinned(parts, self.data)
        if self.base.quantization == "none":
            del parts["base"]["double_quantization"]
        for role, evaluation in self.eval.items():
            parts["eval"][role]["fewshot"] = evaluation.sampler
            parts["eval"][role]["engine"] = _STOCK
        if self.is_baseline:
            del parts["data"], parts["lora"], parts["train"], parts["derive"]
            return parts
        for name in ("target_modules", "layers"):  # a set, whatever its order
            if not isinstance(parts["lora"][name], str):
                parts["lora"][name] = sorted(set(parts["lora"][name]))
        data, train = parts["data"], parts["train"]
        replay = data.pop("replay")
        if self.data.replay.share > 0:
            data["replay"] = {"source": replay["source"], "share": replay["share"]}
            if replay["control"] != "true":
                data["replay"]["control"] = replay["control"]
        data |= {"mix": {name: share for name, share in self.data.mix.items() if share > 0}, "samples": self.data.rows}
        data["sources"] = {name: value for name, value in data["sources"].items() if name in self.data.shares}
        if train["schedule"] != "wsd":
            del train["decay"]
        if self.derive.off is None:
            del parts["derive"]["off"]
        return parts

    @property
    def key(self) -> str:
        """16 hexadecimal digits."""
        text = json.dumps({"schema": SCHEMA, **self.canonical()}, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def _drop_unpinned(parts: dict[str, Any], data: Data) -> None:
    """A spec that is pinned to nothing has the key that it had before specs could be."""
    pins = {name: pin for name, pin in parts["data"]["content"].items() if name in data.shares}
    parts["data"] |= {"content": pins}
    if data.template != "chat":
        parts["data"]["date"] = None
    for section in (parts["base"], parts["data"], *parts["eval"].values()):
        for name in ("content", "date"):
            if not section.get(name):
                section.pop(name, None)
    for source in parts["data"]["sources"].values():
        if source["revision"] is None:
            del source["revision"]
