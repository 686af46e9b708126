"""Parts that compare numbers: 4-bit layers, merging, float16, the fast engine, packed and replayed training."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any
from unittest import mock

import bitsandbytes as bnb
import pandas as pd
import torch
from bitsandbytes.functional import dequantize_4bit

from tests.gpu_check.finding import Finding, World
from trials import mix
from trials.adapters import peft_adapter
from trials.data.batching import collate
from trials.evaluation import evaluate
from trials.evaluation.engine.fast_engine import FastEngine
from trials.evaluation.engine.hf_engine import HFEngine
from trials.hub.hub import Hub
from trials.mix import Example
from trials.models import base, dequantize
from trials.models.base import LoadedBase
from trials.spec import TrialSpec
from trials.tasks.tasks import Tasks
from trials.training import graphed_blocks, packing, trainer

NEVER = trainer.Pace(float("inf"))


def layers(world: World) -> Iterator[Finding]:
    """bitsandbytes' own 4-bit layers against weights that were dequantised once, and an adapter against its merge."""
    for dtype, most in (("float32", 1e-4), ("bfloat16", 0.1)):
        spec = world.spec(dtype)
        with mock.patch.object(dequantize, "SHARE", 0.0):
            own = base.load(spec.base, Hub(world.mirror))
        kept = base.load(spec.base, Hub(world.mirror))
        batch = {name: value.to(own.model.device) for name, value in collate(_rows(world, spec, own)[:4], 0).items()}
        batch.pop("labels")
        yield Finding(f"4-bit weights against the base's own, relative, {dtype}", _error(world, spec, own), 0.12, 0.02)
        with torch.no_grad():
            yield Finding(f"logits by 4-bit layers and by kept weights, {dtype}", _apart(own, kept, batch), most)
            with peft_adapter.adapted(kept, spec.lora, 0) as model:
                _scatter(model)
                adapted = model(**batch).logits.float()
                with peft_adapter.merged(model) as whole:
                    merged = whole(**batch).logits.float()
        if dtype == "float32":  # in 16 bits adapters are not merged
            yield Finding(f"logits with an adapter and merged, {dtype}", _share(adapted, merged), most)


def _error(world: World, spec: TrialSpec, loaded: LoadedBase) -> float:
    """The greatest error of a layer's 4-bit weights, as a share of the norm; nf4 of normal weights has about 0.09."""
    plain = base.load(spec.base.model_copy(update={"quantization": "none"}), Hub(world.mirror)).model
    errors = []
    for name, layer in loaded.model.named_modules():
        if isinstance(layer, bnb.nn.Linear4bit):
            given = plain.get_submodule(name).weight.float()
            own = dequantize_4bit(layer.weight.data, layer.weight.quant_state).float()
            errors.append(float((own - given).norm() / given.norm()))
    return max(errors)


def methods(world: World) -> Iterator[Finding]:
    """Adapters of every method begin as the base, train to a lower loss, and are merged, on 4-bit layers."""
    for method, rate in (("oft", 1e-3), ("shira", 5e-3), ("full", 1e-3)):
        for dtype in ("float32", "bfloat16"):
            spec = world.spec(dtype)
            rank = {"lora": spec.lora.model_copy(update={"method": method})}
            spec = spec.model_copy(update={**rank, "train": spec.train.model_copy(update={"learning_rate": rate})})
            loaded = base.load(spec.base, Hub(world.mirror))
            batch = {name: value.to(loaded.model.device) for name, value in collate(_rows(world, spec, loaded)[:4], 0).items()}
            batch.pop("labels")
            with torch.no_grad():
                alone = loaded.model(**batch).logits.float()
                with peft_adapter.adapted(loaded, spec.lora, 0) as model:
                    begins = _share(alone, model(**batch).logits.float())
                    _scatter(model)
                    tuned = model(**batch).logits.float()
                    with peft_adapter.merged(model) as whole:
                        merged = whole(**batch).logits.float()
            yield Finding(
                f"logits of the base and of {method} before its first step, {dtype}", begins, 0.0 if dtype == "float32" else 0.1
            )
            if dtype == "float32":
                yield Finding(f"logits with {method} and merged, {dtype}", _share(tuned, merged), 1e-3)
            losses, _ = _trained(world, spec)
            yield Finding(f"loss after a training with {method}, share of the first, {dtype}", losses[-1] / losses[0], 1.0)


def float16(world: World) -> Iterator[Finding]:
    """The type of older GPUs, whatever this one is: losses follow those of float32."""
    losses = {dtype: _trained(world, world.spec(dtype))[0] for dtype in ("float32", "float16")}
    gaps = [abs(one - other) / one for one, other in zip(*losses.values(), strict=True)]
    yield Finding("losses in float16 and float32, largest share", max(gaps), 0.05)


def engine(world: World) -> Iterator[Finding]:
    """The fast engine against plain passes, document by document."""
    tasks = Tasks(Hub(world.mirror))
    for dtype in ("float32", "bfloat16"):
        spec = world.spec(dtype)
        loaded = base.load(spec.base, Hub(world.mirror))
        found: dict[str, list[pd.DataFrame]] = {"exact": [], "hflm": []}
        handed_on = 0
        with peft_adapter.adapted(loaded, spec.lora, 0) as model:
            _scatter(model)
            with peft_adapter.merged(model) as whole:
                for role, evaluation in spec.eval.items():
                    for name, make in (("exact", FastEngine), ("hflm", HFEngine)):
                        asked = evaluation.model_copy(update={"engine": name})
                        found[name].append(evaluate.evaluate(make(whole, loaded.tokenizer, 16), role, asked, tasks))
                    answered = found["exact"][-1].attrs["engine"].values()
                    handed_on += sum(str(one).startswith("hflm") for one in answered)
        # else the plain engine is compared with itself: the fast one steps aside where it differs
        yield Finding(f"kinds of requests that the fast engine handed on, {dtype}", float(handed_on), 0.0)
        fast, plain = (pd.concat(frames, ignore_index=True) for frames in found.values())
        differ = float((fast["score"] != plain["score"]).mean())
        yield Finding(f"share of documents with another score, {dtype}", differ, 0.0 if dtype == "float32" else 0.2)
        bits = (fast["bits"] - plain["bits"]).abs() / plain["bytes"]
        yield Finding(f"bits per byte, largest difference, {dtype}", float(bits.max()), 1e-3 if dtype == "float32" else 0.2)
        generated = plain["stopped"].notna()  # of the others, `response` holds likelihoods
        other = float((fast["response"] != plain["response"])[generated].mean())
        yield Finding(f"share of other responses, {dtype}", other, *([0.0] if dtype == "float32" else []))


def training(world: World) -> Iterator[Finding]:
    """Packed rows, padded ones and a plain loop over single rows; replayed passes against launched ones."""
    dtype = "bfloat16" if torch.cuda.is_available() else "float32"  # in which rows are packed here
    most = 0.05 if torch.cuda.is_available() else 1e-3
    spec = world.spec(dtype)
    with mock.patch.object(graphed_blocks, "fits", lambda *_: False):
        padded, _ = _trained(world, spec, padded=True)
        packed, obstacle = _trained(world, spec)
        single = _plain(world, spec)
    yield Finding("packing is used (1) or not (0)", float(obstacle is None), least=1.0)
    yield Finding("losses packed and padded, largest difference", _furthest(packed, padded), most)
    yield Finding("losses packed and of a plain loop, largest difference", _furthest(packed, single), most)
    if not torch.cuda.is_available():
        return
    shapes: list[int] = []
    prepare = graphed_blocks._Blocks.prepare

    def counted(blocks: graphed_blocks._Blocks, *given: Any) -> None:
        prepare(blocks, *given)
        shapes.append(len(blocks.ready))

    with mock.patch.object(graphed_blocks._Blocks, "prepare", counted):
        replayed, _ = _trained(world, spec)
    yield Finding("sizes of passes that are CUDA graphs", float(sum(shapes)), least=1.0)
    yield Finding("losses with and without CUDA graphs, largest difference", _furthest(replayed, packed), most)


def _rows(world: World, spec: TrialSpec, loaded: LoadedBase) -> list[Example]:
    return mix.build(spec.data, Hub(world.mirror), loaded.tokenizer)


def _trained(world: World, spec: TrialSpec, padded: bool = False) -> tuple[list[float], str | None]:
    """The losses of a training, and why its rows are not packed."""
    loaded = base.load(spec.base, Hub(world.mirror))
    rows, pad_id = _rows(world, spec, loaded), loaded.tokenizer.pad_token_id
    with peft_adapter.adapted(loaded, spec.lora, 0) as model:
        obstacle = packing.obstacle(model, spec.train, rows)
        start = replace(trainer.beginning(model, spec.train), packed_rows=obstacle is None and not padded)
        end = trainer.fit(trainer.TrainingInputs(model, pad_id, rows, spec.train, lambda state: None, NEVER), start)
    return [loss for _, loss in end.losses], obstacle


def _plain(world: World, spec: TrialSpec) -> list[float]:
    """The losses of a loop over single rows, with the model's own logits and a schedule that is written out."""
    loaded, settings, found = base.load(spec.base, Hub(world.mirror)), spec.train, []
    rows, size = _rows(world, spec, loaded), spec.train.batch_size
    starts = [*range(0, len(rows), size), len(rows)]
    with peft_adapter.adapted(loaded, spec.lora, 0) as model:
        weights = list(trainer.trainable(model).values())
        optimizer = torch.optim.AdamW(weights, lr=settings.learning_rate, weight_decay=settings.weight_decay)
        schedule = trainer.schedule_of(settings, optimizer, len(starts) - 1)
        model.train()
        for first, last in pairwise(starts):
            losses = [_loss(model, row) for row in rows[first:last]]
            total = torch.stack([loss for loss, _ in losses]).sum() / sum(count for _, count in losses)
            total.backward()
            torch.nn.utils.clip_grad_norm_(weights, settings.max_grad_norm)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            found.append(float(total.detach()))
    return found


def _loss(model: torch.nn.Module, row: Example) -> tuple[torch.Tensor, int]:
    ids, labels = (torch.tensor(values, device=model.device) for values in (row.input_ids, row.labels))
    logits = model(input_ids=ids[None]).logits[0, :-1].float()
    total = torch.nn.functional.cross_entropy(logits, labels[1:], ignore_index=-100, reduction="sum")
    return total, int((labels[1:] != -100).sum())


@torch.no_grad()
def _scatter(model: torch.nn.Module) -> None:
    """Gives an adapter, which begins as nothing, something to add."""
    generator = torch.Generator().manual_seed(3)
    for name, weight in model.named_parameters():
        if weight.requires_grad and "lora_A" not in name:
            weight.copy_(torch.randn(weight.shape, generator=generator) * 0.05)


def _apart(one: LoadedBase, other: LoadedBase, batch: dict[str, torch.Tensor]) -> float:
    return _share(one.model(**batch).logits.float(), other.model(**batch).logits.float())


def _share(one: torch.Tensor, other: torch.Tensor) -> float:
    """The largest difference, as a share of the standard deviation."""
    return float((one - other).abs().max() / one.std())


def _furthest(one: Sequence[float], other: Sequence[float]) -> float:
    return max(abs(mine - theirs) for mine, theirs in zip(one, other, strict=True))
