"""What a trial costs by counting: operations, seconds, memory and disk from the model's config.json; no weights, no torch.

Counting says what the work is, not how well a machine does it, so seconds rest on assumptions that are constants here: the
share of its peak rate that a machine reaches (gpus.GpuKind.utilization) and the time an operation takes to be launched, which
is what a decode step of a small model costs. Memory is what one step keeps for its backward pass, in the manner of Korthikanti
et al. (arXiv 2205.05198, section 4), for a Llama block whose own weights are frozen: no linear layer keeps its input but those
that carry an adapter. A test holds it to what torch keeps.
"""

import functools
import json
import math
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
from tokenizers import Tokenizer

from orchestrator.gpu_catalog import GpuKind
from trials import mix
from trials.adapters.target_modules import blocks, chosen
from trials.errors import InputError
from trials.hub.hub import SELF, Hub, find_source
from trials.spec import Base, Evaluation, Replay, TrialSpec

GIB = 2**30
LAUNCH = 10e-6  # seconds until a small operation is launched from Python
OPERATIONS = 90  # non-view operations of a 4-bit block with an adapter, forward; the backward pass has twice as many
PADDING = 1.9  # tokens computed for one that counts, rows of mixed lengths in micro-batches of eight
ROW_TOKENS = 210  # of an Alpaca or GSM8K training row under the Alpaca template, mean (SmolLM2's tokenizer)
_ROWS = 64  # that are read to know a source's lengths
_UNCUT = 10**9
CPU_SHARE = 0.5  # of a matrix product's rate that a 4-bit model on a CPU reaches
CPU_BANDWIDTH = 10e9
RESERVE = 0.6 * GIB  # CUDA context, workspaces
FILLED = 0.9  # of a GPU's memory; the allocator's fragments take the rest
_BLOCK = 64  # weights that share a constant in bitsandbytes' 4-bit layers
_LLAMA_LIKE = ("llama", "mistral", "qwen2", "qwen3", "gemma", "gemma3_text", "olmo", "olmo2", "smollm3")
_BYTES = {"bfloat16": 2, "float16": 2, "float32": 4}


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
        """(inputs, outputs) of a block's linear layers by the names that lora.target_modules gives them."""
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
        """Weights of all blocks' linear layers: what 4-bit quantisation takes."""
        return self.layers * sum(inputs * outputs for inputs, outputs in self.projections.values())

    @property
    def head(self) -> int:
        return self.vocab * self.hidden

    @property
    def rest(self) -> int:
        """Weights that stay in base.dtype: embedding, head where it is not the embedding, norms."""
        return self.head * (1 if self.tied else 2) + (2 * self.layers + 1) * self.hidden

    def adapter(self, spec: TrialSpec) -> int:
        """Weights of the trial's adapter that are trained."""
        lora = spec.lora
        sizes = [self.projections[name] for name in chosen(lora.target_modules, self.projections)]
        magnitudes = sum(outputs for _, outputs in sizes) if lora.use_dora else 0
        return len(blocks(lora.layers, self.layers)) * (lora.rank * sum(map(sum, sizes)) + magnitudes)

    def begun(self, spec: TrialSpec) -> int:
        """Weights that are kept of how the adapter began, where it began at a part of the base."""
        return self.adapter(spec) if spec.lora.converted else 0


def read_shape(base: Base, hub: Hub) -> Shape:
    """From the model's config.json; raises InputError where it cannot be had or is laid out in another way."""
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
    """config.json of a model of the hub, or why it cannot be had: without a network that takes half a minute to know, and the
    plans of all ablations ask for it."""
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


# ---------------------------------------------------------------------- training rows


class RowLengths:
    """Mean tokens of training rows, from the data and the tokenizer where both lie in a folder; nothing is downloaded."""

    def __init__(self, hub: Hub):
        self._hub = hub
        self._lengths: dict[tuple[str, str], list[int]] = {}
        self._tokenizers: dict[str, _Tokenizer] = {}

    def mean(self, spec: TrialSpec) -> float | None:
        """Of the spec's mix, what the base samples from itself being as long as the rest of it; None where a source's rows or
        the tokenizer are not at hand."""
        total = read = 0.0
        for name, share in spec.data.shares.items():
            if name != SELF:
                read += share
                if (spec.base.model, name) not in self._lengths:
                    self._lengths[spec.base.model, name] = self._read(name, spec)
                rows = self._lengths[spec.base.model, name]
                if not rows:
                    return None
                total += share * sum(min(row, spec.data.max_length) for row in rows) / len(rows)
        return total / read if read else None

    def _read(self, name: str, spec: TrialSpec) -> list[int]:
        """Tokens of some of the source's rows, uncut; none where they are not at hand."""
        file = Path(self._hub.locate(spec.base.model)) / "tokenizer.json"
        if not file.is_file() or not Path(self._hub.locate(find_source(spec.data, name).dataset)).is_dir():
            return []
        tokenizer = self._tokenizers.setdefault(str(file), _Tokenizer(file))
        some = spec.data.model_copy(
            # a chat template is about as long as Alpaca's, and needs transformers
            update={"samples": _ROWS, "mix": {name: 1.0}, "replay": Replay(), "max_length": _UNCUT, "template": "alpaca"}
        )
        try:
            return [len(row.input_ids) for row in mix.build(some, self._hub, tokenizer)]
        except InputError:  # fewer rows than that; `run` says so before it starts
            return []


def tokenizer_at_hand(base: Base, hub: Hub) -> "_Tokenizer | None":
    """The base's tokenizer for counting tokens; None where its file is not in a folder."""
    file = Path(hub.locate(base.model)) / "tokenizer.json"
    return _Tokenizer(file) if file.is_file() else None


class _Tokenizer:
    """What trials.mix asks of a tokenizer, without transformers, whose import takes longer than all of a plan."""

    eos_token_id = 0  # its length is what counts here

    def __init__(self, file: Path):
        self._tokenizer = Tokenizer.from_file(str(file))

    def __call__(self, text: str, add_special_tokens: bool = True) -> dict[str, list[int]]:
        return {"input_ids": self._tokenizer.encode(text, add_special_tokens=add_special_tokens).ids}


# ---------------------------------------------------------------------- benchmarks


@dataclass(frozen=True)
class Lengths:
    """A benchmark's size in documents and in tokens per document, means but for `longest`."""

    documents: int
    context: int
    """Of the prompt without its few-shot examples."""
    shot: int
    """Of one few-shot example."""
    shots: int
    """The task's own number."""
    requests: int
    """Sequences scored per document, of context and ending."""
    ending: int
    generated: int
    """Tokens until the last row of a batch has stopped; 0 where endings are scored."""
    longest: int
    """The longest context with its ending."""


_MMLU = {
    "computer_security": 100,
    "college_computer_science": 100,
    "high_school_computer_science": 100,
    "machine_learning": 112,
}
_LENGTHS = {
    "hellaswag": Lengths(10042, 51, 81, 0, 4, 30, 0, 180),
    "gsm8k": Lengths(1319, 73, 160, 5, 1, 0, 256, 160),
    # lm-eval scores the four letters from one pass over the question
    **{f"mmlu_{name}": Lengths(size, 114, 116, 0, 1, 1, 0, 480) for name, size in _MMLU.items()},
}
_CHOICE = Lengths(1000, 60, 80, 0, 4, 15, 0, 180)
_GENERATED = Lengths(1000, 75, 120, 2, 1, 0, 128, 160)


def lengths(evaluation: Evaluation) -> list[tuple[Lengths, int]]:
    """(lengths, documents) of each of the role's tasks; a typical benchmark of its sort where a task is not known here."""
    typical = _GENERATED if evaluation.metric == "exact_match" else _CHOICE
    found = [_LENGTHS.get(name, typical) for name in evaluation.tasks]
    total = sum(one.documents for one in found)
    share = 1.0 if evaluation.documents is None else evaluation.documents / total
    return [(one, round(one.documents * share)) for one in found]


def unknown_tasks(evaluation: Evaluation) -> list[str]:
    return [name for name in evaluation.tasks if name not in _LENGTHS]


# ---------------------------------------------------------------------- seconds


@dataclass(frozen=True)
class Machine:
    rate: float
    """FLOP/s that the work reaches."""
    bandwidth: float
    """Bytes/s of the memory that holds the weights."""

    @classmethod
    def of(cls, kind: GpuKind) -> "Machine":
        return cls(kind.tflops * 1e12 * kind.utilization, kind.bandwidth * 1e9)

    @classmethod
    def here(cls, cores: int) -> "Machine":
        """So many cores of this machine's CPU, by the rate at which one multiplies matrices (a few hundredths of a second)."""
        count, side = 50, 128  # small enough for one thread each: several would wait for each other where others work as well
        matrices = np.ones((count, side, side), dtype=np.float32)
        took = []
        for _ in range(8):
            began = time.perf_counter()
            matrices @ matrices
            took.append(time.perf_counter() - began)
        return cls(count * 2 * side**3 / min(took) * min(cores, os.cpu_count() or 1) * CPU_SHARE, CPU_BANDWIDTH)


def forward(shape: Shape, tokens: float, length: float) -> float:
    """FLOPs of a pass over `tokens` tokens in sequences of `length`: two per weight, and causal attention's half square."""
    return tokens * (2 * (shape.linear + shape.head) + 2 * length * shape.layers * shape.heads * shape.head_dim)


def train_seconds(shape: Shape, spec: TrialSpec, length: float, machine: Machine) -> float:
    """Forward, the activations' gradients (as much again; frozen weights have none), and the adapter's three passes.

    `length`: mean tokens of a training row.
    """
    rows = spec.data.rows * spec.train.epochs
    micro = min(spec.train.micro_batch_size, spec.train.batch_size)
    tokens = rows * length * (PADDING if micro > 1 else 1.0)
    # attention's backward pass is twice its forward pass: one forward more than the two that the weights cost
    attention = tokens * 2 * length * shape.layers * shape.heads * shape.head_dim
    adapter = tokens * (6 * shape.adapter(spec) + 4 * shape.begun(spec))
    work = 2 * forward(shape, tokens, length) + attention + adapter
    return max(work / machine.rate, math.ceil(rows / micro) * 3 * OPERATIONS * shape.layers * LAUNCH)


def evaluate_seconds(shape: Shape, evaluation: Evaluation, base: Base, machine: Machine) -> float:
    seconds = 0.0
    for found, documents in lengths(evaluation):
        shots = found.shots if evaluation.shots is None else evaluation.shots
        length = found.context + shots * found.shot + found.ending
        sequences = documents * found.requests
        batches = math.ceil(sequences / evaluation.batch_size)
        launching = OPERATIONS * shape.layers * LAUNCH
        seconds += max(forward(shape, sequences * length, length) / machine.rate, batches * launching)
        if found.generated:
            rows = min(evaluation.batch_size, documents)
            step = max(launching, _read(shape, base) / machine.bandwidth, forward(shape, rows, length) / machine.rate)
            seconds += batches * found.generated * step
    return seconds


def _read(shape: Shape, base: Base) -> float:
    """Bytes that a decode step moves: a 4-bit weight is read, written in base.dtype and read again."""
    size = _BYTES[base.dtype]
    return shape.linear * (size if base.quantization == "none" else 0.5 + 2 * size) + shape.head * size


# ---------------------------------------------------------------------- memory and disk


@dataclass(frozen=True)
class Memory:
    """Bytes on the device at a trial's peak."""

    weights: float
    adapter: float
    """With its gradients and AdamW's two moments; what it began at has neither."""
    activations: float
    """Kept by a full micro-batch of longest rows for its backward pass."""
    logits: float
    """Of that micro-batch, with the loss and its gradient."""
    evaluation: float
    """The largest batch of the evaluation: its logits, or its keys and values."""
    reserve: float = RESERVE

    @property
    def total(self) -> float:
        return self.weights + self.adapter + max(self.activations + self.logits, self.evaluation) + self.reserve


def memory(shape: Shape, spec: TrialSpec) -> Memory:
    size = _BYTES[spec.base.dtype]
    tokens = min(spec.train.micro_batch_size, spec.train.batch_size) * spec.data.max_length
    return Memory(
        weights=shape.linear * _linear_bytes(spec.base) + shape.rest * size,
        adapter=shape.adapter(spec) * 16.0 + shape.begun(spec) * 4.0,
        activations=tokens * _kept(shape, spec),
        # the logits, their float32 copy where they are narrower, log-softmax and its gradient
        logits=12.0 * tokens * shape.vocab,
        evaluation=max(_evaluation_bytes(shape, evaluation, size) for evaluation in spec.eval.values()),
    )


def _linear_bytes(base: Base) -> float:
    """Per weight. Constants: a float32 per block, or a byte and a float32 per 256 blocks when quantised themselves."""
    if base.quantization == "none":
        return _BYTES[base.dtype]
    return 0.5 + ((1 + 4 / 256) if base.double_quantization else 4) / _BLOCK


def _kept(shape: Shape, spec: TrialSpec) -> float:
    """Bytes per token that the blocks keep for their backward pass; below the first adapter there is none."""
    size, attended = _BYTES[spec.base.dtype], shape.heads * shape.head_dim
    norms = 2 * 4 * shape.hidden  # in float32, whatever the model's type
    attention = size * (2 * attended + 2 * shape.kv_heads * shape.head_dim)  # queries, keys, values and what comes out
    mlp = size * 3 * shape.intermediate  # the gate before and after its activation, the other half
    adapted = blocks(spec.lora.layers, shape.layers)
    return (shape.layers - adapted[0]) * (norms + attention + mlp) + len(adapted) * _kept_by_adapters(shape, spec)


def _kept_by_adapters(shape: Shape, spec: TrialSpec) -> float:
    """Of a block: each adapter keeps its input and its inner activation in float32; what is frozen keeps nothing."""
    adapted = {name: shape.projections[name][0] for name in chosen(spec.lora.target_modules, shape.projections)}
    inputs = sum(adapted.values())
    if spec.lora.dropout > 0:
        kept = 5 * inputs  # what dropout has left of it, and its mask
    elif spec.base.dtype == "float32":  # what several read is kept once, and what o_proj reads is kept by attention already
        read_at_once = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"), ("down_proj",))
        kept = 4 * sum(max(adapted.get(name, 0) for name in group) for group in read_at_once)
    else:
        kept = 4 * inputs  # a copy each
    return kept + 4 * spec.lora.rank * len(adapted)


def _evaluation_bytes(shape: Shape, evaluation: Evaluation, size: int) -> float:
    needs = []
    for found, _ in lengths(evaluation):
        shots = found.shots if evaluation.shots is None else evaluation.shots
        tokens = evaluation.batch_size * (found.longest + shots * found.shot + found.generated)
        if found.generated:
            needs.append(tokens * shape.layers * 2.0 * shape.kv_heads * shape.head_dim * size)
        else:
            needs.append(tokens * shape.vocab * 2.0 * size)  # the logits and their log-softmax
    return max(needs)


def disk_bytes(shape: Shape, spec: TrialSpec) -> float:
    """What a trial leaves: its adapter in float32, a row per document, and small files."""
    documents = sum(count for evaluation in spec.eval.values() for _, count in lengths(evaluation))
    return (shape.adapter(spec) + shape.begun(spec)) * 4.0 + documents * 200.0 + 50_000.0
