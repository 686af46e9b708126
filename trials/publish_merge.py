"""Merges an adapter into the 16-bit weights of its base for plain transformers, and evaluates the written model.

The base is the published one, not its 4-bit weights, which would be quantised twice. An adapter that was trained on 4-bit
weights then adds to different weights, so the merged model needs scores of its own.
"""

import json
from pathlib import Path
from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTunerLayer

from trials.adapters import peft_adapter
from trials.adapters.methods import adapted_layers
from trials.errors import InputError
from trials.hub import identity
from trials.hub.hub import Hub, is_commit
from trials.ledger import storage
from trials.ledger.record import Ledger, TrialRecord
from trials.models import base
from trials.run.worker import Worker
from trials.spec import Base, Derive, TrialSpec


def merge(record: TrialRecord, ledger: Ledger, hub: Hub, folder: Path) -> None:
    """Writes the record's merged model and tokenizer into the local `folder`, and the adapter alone into `adapter/`.

    The weights have the trial's type (base.dtype). Raises InputError where the base has changed or is gone since the training,
    or where a merged weight is not finite.
    """
    loaded = base.load(_original(record, hub), hub)
    if record.base_checksum is not None and loaded.checksum != record.base_checksum:
        raise InputError(
            f"{record.spec.base.model}: its weights are others than those that {record.key} was trained on "
            f"({loaded.checksum} instead of {record.base_checksum})"
        )
    if getattr(loaded.model, "is_quantized", False):  # the published weights themselves, whatever the spec says
        raise InputError(f"{record.spec.base.model} is quantised as it is published; there is nothing in 16 bits to merge into")
    place = ledger.folder(record.key) / "adapter"
    try:
        kept = {name: storage.read_bytes(place / name) for name in ("adapter_config.json", "adapter_model.safetensors")}
    except FileNotFoundError:
        raise InputError(f"{place} is gone; move its record.json away, and the trial trains it again") from None
    (folder / "adapter").mkdir()
    for name, content in kept.items():
        (folder / "adapter" / name).write_bytes(content)
    with peft_adapter.borrowed(loaded, folder / "adapter") as model:
        _untie(model)
        changed = [layer.get_base_layer() for layer in adapted_layers(model).values()]
        # not PEFT's safe_merge, which rounds twice: the update, then the sum
        merged: Any = model.merge_and_unload()  # type: ignore[operator]  # nn.Module's attributes are untyped
    if not all(torch.isfinite(layer.weight).all() for layer in changed):
        raise InputError(f"{record.key}: the merged weights are not finite in {record.spec.base.dtype}")
    merged.config.name_or_path = ""  # a folder of this machine
    merged.save_pretrained(folder)
    base.tokenizer(record.spec.base, hub).save_pretrained(folder)
    _name_base(folder / "adapter" / "adapter_config.json", record.spec.base, hub)


def evaluate(record: TrialRecord, ledger: Ledger, hub: Hub, folder: Path) -> TrialRecord:
    """Evaluates the merged model in `folder` on all of the record's documents; its record goes to the ledger.

    Its key depends on the adapter's key and the written weights, so that the same merge is evaluated once.
    """
    worker = Worker(ledger, _WithMerged(hub, folder))
    return worker.run(merged_spec(record, folder))


def merged_spec(record: TrialRecord, folder: Path) -> TrialSpec:
    """The baseline of the merged model as an unquantised base; its revision is a checksum of its weights."""
    revision = identity.of_weights(folder)[:16]
    merged = Base(model=f"merged/{record.key}", revision=revision, quantization="none", dtype=record.spec.base.dtype)
    return record.spec.model_copy(update={"base": merged, "derive": Derive()}).baseline()


class _WithMerged(Hub):
    """The hub, with the merged model of a folder in addition."""

    def __init__(self, hub: Hub, folder: Path):
        super().__init__(hub.mirror)
        self._folder = folder

    def locate(self, name: str) -> str:
        return str(self._folder) if name.startswith("merged/") else super().locate(name)


def _original(record: TrialRecord, hub: Hub) -> Base:
    """The record's base without quantisation, at the hub's commit that the adapter was trained on."""
    wanted = record.spec.base.model_copy(update={"quantization": "none"})
    if not hub.has(wanted.model) and wanted.gguf is None and is_commit(record.base_checksum or ""):
        return wanted.model_copy(update={"revision": record.base_checksum})
    return wanted


def _untie(model: Any) -> None:
    """Copies the weights of a head that has an adapter: a merge into tied weights would change the embeddings as well."""
    whole = model.get_base_model()
    head, embeddings = whole.get_output_embeddings(), whole.get_input_embeddings()
    if isinstance(head, BaseTunerLayer) and head.get_base_layer().weight is embeddings.weight:
        layer = head.get_base_layer()
        layer.weight = torch.nn.Parameter(layer.weight.detach().clone(), requires_grad=False)  # type: ignore[operator]
        whole.config.tie_word_embeddings = False


def _name_base(path: Path, original: Base, hub: Hub) -> None:
    """Sets the base's name in a saved adapter to one that others can resolve; PEFT writes a folder of this machine."""
    settings = json.loads(path.read_text(encoding="utf-8"))
    named = original.model if hub.is_id(original.model) else Path(original.model).name
    settings |= {"base_model_name_or_path": named, "revision": original.revision}
    path.write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n", encoding="utf-8")
