"""An adapter merged into the 16-bit weights of its base, as plain transformers reads them, and what is written scored again.

Merged is into the base as it was published, never into its 4-bit weights: these would be quantised once more. So an adapter
that was trained on 4-bit weights meets others than those it was trained on, and its numbers are not the merged model's: that
is why the merged model is evaluated, from the files that were written, as any base is that nothing was trained on.
"""

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import torch
from peft.tuners.lora import LoraLayer

from trials.adapters import lora
from trials.errors import InputError
from trials.hub.hub import Hub
from trials.ledger import storage
from trials.ledger.record import Ledger, TrialRecord
from trials.models import base
from trials.run.worker import Worker
from trials.spec import Base, Derive, TrialSpec

_COMMIT = re.compile(r"[0-9a-f]{40}")


def merge(record: TrialRecord, ledger: Ledger, hub: Hub, folder: Path) -> None:
    """Writes the record's merged model with its tokenizer into the local `folder`, and the adapter by itself into `adapter/`.

    The weights are of the type that the trial computed in (base.dtype), every sum is rounded to it once. Raises InputError
    where the base is not to be had any more as the adapter was trained on it, or the sum is not finite.
    """
    loaded = base.load(_original(record, hub), hub)
    if record.base_checksum is not None and loaded.checksum != record.base_checksum:
        raise InputError(
            f"{record.spec.base.model}: its weights are others than those that {record.key} was trained on "
            f"({loaded.checksum} instead of {record.base_checksum})"
        )
    if getattr(loaded.model, "is_quantized", False):
        raise InputError(f"{record.spec.base.model} is quantised as it is published; there is nothing in 16 bits to merge into")
    place = ledger.folder(record.key) / "adapter"
    try:
        kept = {name: storage.read_bytes(place / name) for name in ("adapter_config.json", "adapter_model.safetensors")}
    except FileNotFoundError:
        raise InputError(f"{place} is gone; move its record.json away, and the trial trains it again") from None
    (folder / "adapter").mkdir()
    for name, content in kept.items():
        (folder / "adapter" / name).write_bytes(content)
    with lora.borrowed(loaded, folder / "adapter") as model:
        _untie(model)
        changed: list[Any] = [module.get_base_layer() for module in model.modules() if isinstance(module, LoraLayer)]
        # not PEFT's safe_merge, which rounds what it adds before it adds it
        merged: Any = model.merge_and_unload()  # type: ignore[operator]  # nn.Module's attributes are untyped
    if not all(torch.isfinite(layer.weight).all() for layer in changed):
        raise InputError(f"{record.key}: the merged weights are not finite in {record.spec.base.dtype}")
    merged.config.name_or_path = ""
    merged.save_pretrained(folder)
    base.tokenizer(record.spec.base, hub).save_pretrained(folder)
    _name_base(folder / "adapter" / "adapter_config.json", record.spec.base, hub)


def evaluate(record: TrialRecord, ledger: Ledger, hub: Hub, folder: Path) -> TrialRecord:
    """The merged model in `folder` on all of the record's documents; its own record, which goes to the ledger.

    Its key follows from the adapter's and from the weights that were written, so that the same merge is evaluated once.
    """
    worker = Worker(ledger, _WithMerged(hub, folder))
    return worker.run(merged_spec(record, folder))


def merged_spec(record: TrialRecord, folder: Path) -> TrialSpec:
    """The merged model as a base without quantisation on which nothing is trained; its revision is its weights' checksum."""
    digest = hashlib.sha256()
    for file in sorted(folder.glob("*.safetensors")):
        with file.open("rb") as opened:
            digest.update(hashlib.file_digest(opened, "sha256").digest())
    merged = Base(
        model=f"merged/{record.key}",
        revision=digest.hexdigest()[:16],
        quantization="none",
        dtype=record.spec.base.dtype,
    )
    return record.spec.model_copy(update={"base": merged, "derive": Derive()}).baseline()


class _WithMerged(Hub):
    """The hub with the merged model in it, whatever its name and wherever it lies."""

    def __init__(self, hub: Hub, folder: Path):
        super().__init__(hub.mirror)
        self._folder = folder

    def locate(self, name: str) -> str:
        return str(self._folder) if name.startswith("merged/") else super().locate(name)


def _original(record: TrialRecord, hub: Hub) -> Base:
    """The record's base without quantisation, at the commit that the adapter was trained on where the hub gave one."""
    wanted = record.spec.base.model_copy(update={"quantization": "none"})
    if not hub.has(wanted.model) and wanted.gguf is None and _COMMIT.fullmatch(record.base_checksum or ""):
        return wanted.model_copy(update={"revision": record.base_checksum})
    return wanted


def _untie(model: Any) -> None:
    """Gives a head with an adapter weights of its own: merged into shared ones it would change the embeddings as well."""
    whole = model.get_base_model()
    head, embeddings = whole.get_output_embeddings(), whole.get_input_embeddings()
    if isinstance(head, LoraLayer) and head.get_base_layer().weight is embeddings.weight:
        layer = head.get_base_layer()
        layer.weight = torch.nn.Parameter(layer.weight.detach().clone(), requires_grad=False)  # type: ignore[operator]
        whole.config.tie_word_embeddings = False


def _name_base(path: Path, original: Base, hub: Hub) -> None:
    """Has a saved adapter name its base as others can find it; PEFT notes the folder that it was loaded from."""
    told = json.loads(path.read_text(encoding="utf-8"))
    named = original.model if hub.is_id(original.model) else Path(original.model).name
    told |= {"base_model_name_or_path": named, "revision": original.revision}
    path.write_text(json.dumps(told, indent=2, sort_keys=True) + "\n", encoding="utf-8")
