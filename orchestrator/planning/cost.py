"""Cost of a trial by counting: operations, seconds, memory and disk. No weights, no torch.

Counting says what the work is, not how well a machine does it. Seconds therefore rest on two assumptions: the share of its peak
rate that a machine reaches (GpuKind.utilization), and LAUNCH. Memory is what a step keeps for its backward pass, in the manner
of Korthikanti et al. (arXiv 2205.05198, section 4), for a Llama block with frozen weights; a test compares it with torch.
"""

import math
import os
import time
import timeit
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from orchestrator.gpu_catalog import GpuKind
from orchestrator.planning.benchmark_lengths import Lengths, lengths
from orchestrator.planning.model_shape import Shape
from trials.adapters.target_modules import blocks, chosen
from trials.mix import HELD_OUT
from trials.spec import Base, Evaluation, TrialSpec

GIB = 2**30
LAUNCH = 10e-6  # seconds until a small operation is launched from Python; they make up a small model's decode step
OPERATIONS = 90  # non-view operations of a 4-bit block with an adapter, forward; the backward pass has twice as many
PADDING = 1.9  # tokens computed for one that counts, rows of mixed lengths in micro-batches of eight
CPU_SHARE = 0.5  # of a matrix product's rate that a 4-bit model on a CPU reaches
CPU_BANDWIDTH = 10e9
RESERVE = 0.6 * GIB  # CUDA context, workspaces
FILLED = 0.9  # of a GPU's memory; the allocator's fragments take the rest
_BLOCK = 64  # weights that share a constant in bitsandbytes' 4-bit layers
_BYTES = {"bfloat16": 2, "float16": 2, "float32": 4}
_POWERS = 4  # matrices that OFT keeps for each rotation: itself and the powers that it is made of


@dataclass(frozen=True)
class Machine:
    rate: float
    """FLOP/s that a trial reaches."""
    bandwidth: float
    """Bytes/s of the memory that holds the weights."""

    @classmethod
    def of(cls, kind: GpuKind) -> "Machine":
        return cls(kind.tflops * 1e12 * kind.utilization, kind.bandwidth * 1e9)

    @classmethod
    def here(cls, cores: int) -> "Machine":
        """Cores of this machine's CPU, by the rate of a matrix product on one; takes a few hundredths of a second."""
        # 64 rows are too few for OpenBLAS to start threads, which would count as one core here and wait for each other on a
        # busy machine; the thread's own time leaves out what other processes took meanwhile
        count, side = 200, 64
        matrices = np.ones((count, side, side), dtype=np.float32)
        seconds = min(timeit.repeat(lambda: matrices @ matrices, timer=time.thread_time, repeat=8, number=1))
        return cls(count * 2 * side**3 / seconds * min(cores, os.cpu_count() or 1) * CPU_SHARE, CPU_BANDWIDTH)


def forward(shape: Shape, tokens: float, length: float) -> float:
    """FLOPs of a pass over tokens in sequences of `length`: two per weight, and half a square for causal attention."""
    return tokens * (2 * (shape.linear + shape.head) + 2 * length * shape.layers * shape.heads * shape.head_dim)


def train_seconds(shape: Shape, spec: TrialSpec, length: float, machine: Machine) -> float:
    """`length`: mean tokens of a training row."""
    rows = spec.data.rows * spec.train.epochs
    micro = min(spec.train.micro_batch_size, spec.train.batch_size)
    # else rows are packed, if the architecture allows it
    padded = spec.lora.dropout > 0 or spec.train.neftune > 0 or spec.train.backend == "unsloth"
    tokens = rows * length * (PADDING if padded and micro > 1 else 1.0)
    # attention's backward pass costs two forward passes, a weight's only one
    attention = tokens * 2 * length * shape.layers * shape.heads * shape.head_dim
    adapter = tokens * 6 * shape.adapter(spec)
    if spec.lora.converted:
        adapter += tokens * 4 * shape.begun(spec)
    if spec.lora.method == "oft":  # whole blocks, of which half is trained
        adapter *= 2
    elif spec.lora.method == "full" and spec.base.quantization == "none":  # the base's weights and its own are one matrix
        adapter /= 3
    elif spec.lora.method == "shira":  # the gradient of all weights, of which it takes its own
        adapter = tokens * 2 * len(blocks(spec.lora.layers, shape.layers)) * _targeted(shape, spec)
    # the forward pass, gradients of activations (frozen weights have none), and the adapter's three passes
    work = 2 * forward(shape, tokens, length) + attention + adapter
    return max(work / machine.rate, math.ceil(rows / micro) * 3 * OPERATIONS * shape.layers * LAUNCH)


def drift_seconds(shape: Shape, spec: TrialSpec, length: float, machine: Machine) -> float:
    """Of the held-out rows' passes through the tuned model and its base.

    `length`: mean tokens of a row. Takes every source for one with as many held-out rows as a source may have.
    """
    rows = HELD_OUT * len(spec.data.shares)
    passes = 2 * forward(shape, rows * length, length) / machine.rate
    return max(passes, 2 * math.ceil(rows / spec.train.micro_batch_size) * OPERATIONS * shape.layers * LAUNCH)


def evaluate_seconds(
    shape: Shape, evaluation: Evaluation, base: Base, machine: Machine, sizes: Sequence[Lengths] | None = None
) -> float:
    """`sizes`: those of the role's tasks. Default: typical ones."""
    seconds = 0.0
    launching = OPERATIONS * shape.layers * LAUNCH
    for task in lengths(evaluation) if sizes is None else sizes:
        length = task.context + task.examples + task.ending
        sequences = task.documents * task.requests
        batches = math.ceil(sequences / evaluation.batch_size)
        seconds += max(forward(shape, sequences * length, length) / machine.rate, batches * launching)
        if task.generated:
            rows = min(evaluation.batch_size, task.documents)
            step = max(launching, _read(shape, base) / machine.bandwidth, forward(shape, rows, length) / machine.rate)
            seconds += batches * task.generated * step
    return seconds


def _read(shape: Shape, base: Base) -> float:
    """Bytes that a decode step moves. A 4-bit weight is read, written in base.dtype and read again."""
    size = _BYTES[base.dtype]
    return shape.linear * (size if base.quantization == "none" else 0.5 + 2 * size) + shape.head * size


# ---------------------------------------------------------------------- memory and disk


def memory(shape: Shape, spec: TrialSpec) -> dict[str, float]:
    """Bytes on the device by purpose, for a full micro-batch of the longest rows and the largest batch of an evaluation."""
    size = _BYTES[spec.base.dtype]
    tokens = min(spec.train.micro_batch_size, spec.train.batch_size) * spec.data.max_length
    return {
        "weights": shape.linear * _linear_bytes(spec.base) + shape.rest * size,
        # with gradients and AdamW's two moments; the initial adapter is frozen and has none
        "adapter": shape.adapter(spec) * 16.0 + shape.begun(spec) * 4.0,
        "activations": tokens * _kept(shape, spec) + _made(shape, spec),
        # the logits, their float32 copy where they are narrower, log-softmax and its gradient
        "logits": 12.0 * tokens * shape.vocab,
        "evaluation": max(_evaluation_bytes(shape, evaluation, size) for evaluation in spec.eval.values()),
        "reserve": RESERVE,
    }


def peak(parts: Mapping[str, float]) -> float:
    """Bytes at a trial's peak, from the parts of `memory`. Evaluation follows training and needs none of its activations."""
    phase = max(parts["activations"] + parts["logits"], parts["evaluation"])
    return parts["weights"] + parts["adapter"] + phase + parts["reserve"]


def _linear_bytes(base: Base) -> float:
    """Per weight, with the constants of a 4-bit layer."""
    if base.quantization == "none":
        return _BYTES[base.dtype]
    # a float32 per block, or a byte per block and a float32 per 256 blocks
    return 0.5 + ((1 + 4 / 256) if base.double_quantization else 4) / _BLOCK


def _kept(shape: Shape, spec: TrialSpec) -> float:
    """Bytes per token that the blocks keep for their backward pass, which ends at the first adapter."""
    size, attended = _BYTES[spec.base.dtype], shape.heads * shape.head_dim
    norms = 2 * 4 * shape.hidden  # in float32, whatever the model's type
    attention = size * (2 * attended + 2 * shape.kv_heads * shape.head_dim)  # queries, keys, values and output
    mlp = size * 3 * shape.intermediate  # the gate before and after its activation, the other half
    adapted = blocks(spec.lora.layers, shape.layers)
    return (shape.layers - adapted[0]) * (norms + attention + mlp) + len(adapted) * _kept_by_adapters(shape, spec)


def _made(shape: Shape, spec: TrialSpec) -> float:
    """Bytes of the matrices that an adapter makes at each pass and keeps for the backward pass, whatever the tokens."""
    layers = len(blocks(spec.lora.layers, shape.layers))
    if spec.lora.method == "full":  # the sums with the base's weights; on 4-bit weights its own ones, rounded
        made = spec.base.quantization == "none" or spec.base.dtype != "float32"
        return float(made * _BYTES[spec.base.dtype] * shape.adapter(spec))
    if spec.lora.method == "shira":  # the base's weights and its own in one
        return layers * _targeted(shape, spec) * _BYTES[spec.base.dtype]
    if spec.lora.method == "oft":  # the rotation and the powers that it is made of
        return layers * 4.0 * _POWERS * spec.lora.block_size * sum(inputs for inputs, _ in shape.targets(spec.lora))
    return 0.0


def _targeted(shape: Shape, spec: TrialSpec) -> int:
    """Weights of a block's layers that get an adapter."""
    return sum(inputs * outputs for inputs, outputs in shape.targets(spec.lora))


def _kept_by_adapters(shape: Shape, spec: TrialSpec) -> float:
    """Bytes per token and block. An adapter keeps its input and inner activation in float32; frozen weights keep nothing."""
    adapted = {name: shape.projections[name][0] for name in chosen(spec.lora.target_modules, shape.projections)}
    inputs = sum(adapted.values())
    # a common input is kept once, and the input of o_proj is kept by attention already
    read_at_once = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"), ("down_proj",))
    shared = sum(max(adapted.get(name, 0) for name in group) for group in read_at_once)
    if spec.lora.dropout > 0:
        kept = 5 * inputs  # the input after dropout, and the mask
    elif spec.base.dtype == "float32":
        kept = 4 * shared
    else:
        kept = 4 * inputs  # each adapter keeps its own float32 copy
    match spec.lora.method:
        case "lora":
            return kept + 4 * spec.lora.rank * len(adapted)
        case "full" if spec.base.quantization == "none":  # reads its input as the base's layer does
            return _BYTES[spec.base.dtype] * shared
        case "full":
            return kept if spec.base.dtype == "float32" else 2 * inputs
        case _:
            return kept


def _evaluation_bytes(shape: Shape, evaluation: Evaluation, size: int) -> float:
    """Keys and values of the largest batch, or its logits."""
    needs = []
    for task in lengths(evaluation):
        tokens = evaluation.batch_size * (task.longest + task.examples + task.generated)
        if task.generated:
            needs.append(tokens * shape.layers * 2.0 * shape.kv_heads * shape.head_dim * size)
        else:
            needs.append(tokens * shape.vocab * 2.0 * size)  # the logits and their log-softmax
    return max(needs)


def disk_bytes(shape: Shape, spec: TrialSpec) -> float:
    """Size of a trial in the ledger: the adapter in float32, a row per document, and small files."""
    documents = sum(task.documents for evaluation in spec.eval.values() for task in lengths(evaluation))
    return (shape.adapter(spec) + shape.begun(spec)) * 4.0 + documents * 200.0 + 50_000.0
