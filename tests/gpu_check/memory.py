"""Parts about memory: graphs that give it back, halving when it is short, and the plan's estimate."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from orchestrator.planning import cost, model_shape
from tests.gpu_check.finding import Finding, World
from trials.evaluation.engine import cuda_graph_greedy, greedy
from trials.hub.hub import Hub
from trials.ledger.record import Ledger, TrialRecord
from trials.models import base, cuda_graphs, oom
from trials.run.worker import Worker
from trials.spec import TrialSpec

_CALLS = 30


def graphs(world: World) -> Iterator[Finding]:
    """Decoding in slots, again and again: the tokens of decoding without them, and memory that does not grow."""
    # in 16 bits the two likeliest tokens are often equally likely
    loaded = base.load(world.spec("float32").base, Hub(world.mirror))
    generator = torch.Generator().manual_seed(0)
    prompts = [torch.randint(5, 1000, (20 + 7 * i,), generator=generator).tolist() for i in range(12)]

    def generated(run: object) -> list[list[int]]:
        rows = [greedy.Row(prompt) for prompt in prompts]
        with torch.no_grad():
            run(loaded.model, rows, 16, 8, lambda tokens: False)  # type: ignore[operator]
        return [row.generated for row in rows]

    usual = generated(greedy.greedy)
    first, before = generated(cuda_graph_greedy.greedy), _reserved()
    for _ in range(_CALLS - 1):
        generated(cuda_graph_greedy.greedy)
    same = sum(one == other for one, other in zip(first, usual, strict=True)) / len(usual)
    yield Finding("share of equal responses, in slots and without", same, least=0.8)
    if loaded.model.device.type == "cuda":
        yield Finding(f"memory reserved after {_CALLS} calls, of that after one", _reserved() / before, 1.05)
        yield Finding("captures that failed", float(loaded.model in cuda_graphs._uncapturable), 0.0)


def short(world: World) -> Iterator[Finding]:
    """Too little memory for a whole micro-batch: it is halved, and the training ends as it would have."""
    train = {"batch_size": 32, "micro_batch_size": 32}
    whole = _ran(world, world.spec("float32", train=train), "whole")
    small = _ran(world, world.spec("float32", train={**train, "micro_batch_size": 8}), "small")
    yield Finding("losses with small and whole micro-batches, largest difference", _apart(small, whole), 1e-3)
    if not torch.cuda.is_available():
        return
    with _room(whole, small):
        halved = _ran(world, world.spec("float32", train=train), "halved")
    times = sum(one.phase == "train" for one in halved.out_of_memory)
    yield Finding("times the micro-batch was halved", float(times), least=1.0)
    yield Finding("losses with halved and whole micro-batches, largest difference", _apart(halved, whole), 1e-3)


def estimate(world: World) -> Iterator[Finding]:
    """Peak memory of a trial against what `slimsweep plan` counts."""
    spec = world.spec("bfloat16")
    record = _ran(world, spec, "estimated")
    parts = cost.memory(model_shape.read_shape(spec.base, Hub(world.mirror)), spec)
    planned = cost.peak(parts) - parts["reserve"]  # what CUDA itself takes is not measured
    yield Finding("planned peak memory in GiB", planned / 2**30)
    for where, size in record.peak_memory.items():
        yield Finding(f"peak memory in GiB, {where}", size / 2**30)
    if "device" in record.peak_memory and world.mirror:  # on a CPU, and with micro, the process itself is most of it
        # the few documents of the check fill no batch of the plan's, so that it may be far above, and must not be below
        yield Finding("planned by measured peak memory", planned / record.peak_memory["device"], least=0.8)


def _ran(world: World, spec: TrialSpec, name: str) -> TrialRecord:
    oom.release()  # the base of the run before
    record = Worker(Ledger(world.folder / name), Hub(world.mirror)).run(spec)
    if record.failure:
        raise RuntimeError(record.failure.traceback)
    return record


def _apart(one: TrialRecord, other: TrialRecord) -> float:
    return max(abs(mine - theirs) for (_, mine), (_, theirs) in zip(one.losses, other.losses, strict=True))


@contextmanager
def _room(whole: TrialRecord, small: TrialRecord) -> Iterator[None]:
    """Limits this process's share of the GPU between what the two trainings took."""
    most, least = (record.memory["train"]["device"] for record in (whole, small))
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction((most + least) / 2 / torch.cuda.get_device_properties(0).total_memory)
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


def _reserved() -> float:
    return float(torch.cuda.memory_reserved()) if torch.cuda.is_available() else 0.0
