"""The adapter: put on a base that is lent to it, saved as plain PEFT, read again, and what is derived from it.

The base is itself again afterwards, to the bit, whatever happened meanwhile.
"""

import hashlib
import json
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict

from trials import initial, targets
from trials.base import LoadedBase
from trials.errors import InputError
from trials.mix import Example
from trials.spec import Derive, Lora

_WEIGHTS, _CONFIG = "adapter_model.safetensors", "adapter_config.json"


@contextmanager
def adapted(loaded: LoadedBase, lora: Lora, seed: int, rows: Sequence[Example] = ()) -> Iterator[PeftModel]:
    """The base with a fresh adapter on it. `rows` are training rows, for initialisations that look at some."""
    torch.manual_seed(seed)
    names = {name.rpartition(".")[2] for name, module in loaded.model.named_modules() if isinstance(module, torch.nn.Linear)}
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=lora.rank,
        lora_alpha=lora.alpha,  # type: ignore[arg-type]  # PEFT divides by it; a float is as good
        lora_dropout=lora.dropout,
        target_modules=targets.chosen(lora.target_modules, names),
        layers_to_transform=blocks(lora.layers, loaded.model.config.num_hidden_layers),
        use_rslora=lora.use_rslora,
        use_dora=lora.use_dora,
        **initial.fields(lora),
    )
    model = get_peft_model(loaded.model, config)
    with _lent(loaded, model):
        initial.fill(model, config, lora, rows, loaded.tokenizer.pad_token_id)
        yield model


@contextmanager
def borrowed(loaded: LoadedBase, folder: Path) -> Iterator[PeftModel]:
    """The base with the adapter that `save` left in a local folder; nothing is trainable."""
    if not (folder / _WEIGHTS).is_file():  # PEFT would look for a pickle
        raise InputError(f"{folder}: no adapter, it holds no {_WEIGHTS}")
    model = PeftModel.from_pretrained(loaded.model, str(folder))
    with _lent(loaded, model):
        yield model.eval()


@contextmanager
def _lent(loaded: LoadedBase, model: PeftModel) -> Iterator[None]:
    try:
        yield
    finally:
        loaded.model = model.unload().eval()
        loaded.model.requires_grad_(False)


def blocks(layers: str | Sequence[int], count: int) -> list[int] | None:
    """The numbers of the transformer blocks that are meant, None for all; raises InputError for one that is not there."""
    if isinstance(layers, str):
        if layers == "all":
            return None
        third = ("first-third", "middle-third", "last-third").index(layers)
        return list(range(round(count * third / 3), round(count * (third + 1) / 3)))
    if beyond := [number for number in layers if not 0 <= number < count]:
        raise InputError(f"lora.layers: there is no block {beyond[0]}; the base has {count}, numbered from 0")
    return sorted(set(layers))


def save(model: PeftModel, folder: Path) -> None:
    """Writes the adapter as one that plain PEFT loads onto the same base.

    An adapter that began at a part of the base and has a second one that takes this part off is written as one of twice the
    rank: A and B of both side by side.
    """
    config: Any = model.peft_config["default"]
    weights = get_peft_model_state_dict(model, adapter_name="default")
    if initial.INITIAL in model.peft_config:
        off = get_peft_model_state_dict(model, adapter_name=initial.INITIAL)
        weights = {name: torch.cat([weight, off[name]], dim=_rank_axis(name)) for name, weight in weights.items()}
        config = LoraConfig(**(config.to_dict() | _of_rank(config.to_dict(), 2 * config.r)))
    folder.mkdir(parents=True, exist_ok=True)
    found = {name: weight.detach().cpu().contiguous() for name, weight in weights.items()}
    safetensors.torch.save_file(found, str(folder / _WEIGHTS), metadata={"format": "pt"})
    written = json.loads(json.dumps(config.to_dict() | {"inference_mode": True, "init_lora_weights": True}, default=_as_json))
    (folder / _CONFIG).write_text(json.dumps(written, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def checksum(folder: Path) -> str:
    """sha256 of a saved adapter's weights."""
    return hashlib.sha256((folder / _WEIGHTS).read_bytes()).hexdigest()


def _as_json(value: Any) -> Any:
    return sorted(value) if isinstance(value, set) else str(value)


def _rank_axis(name: str) -> int:
    return 0 if ".lora_A." in name else 1


def _of_rank(config: dict[str, Any], rank: int) -> dict[str, Any]:
    """What changes in an adapter's config with its rank, its scale being kept."""
    root = math.sqrt if config.get("use_rslora") else float
    return {"r": rank, "lora_alpha": config["lora_alpha"] / root(config["r"]) * root(rank)}


def derive(source: Path, target: Path, derive: Derive) -> None:
    """Writes the adapter in the local folder `source` truncated and scaled to `target`; InputError for one that cannot be."""
    config = json.loads((source / _CONFIG).read_text(encoding="utf-8"))
    if config.get("use_dora"):
        raise InputError("derive: a DoRA adapter changes the norms of the base's weights too; it has no strength and no rank")
    weights = safetensors.torch.load_file(str(source / _WEIGHTS))
    downs = {name: name.replace(".lora_A.", ".lora_B.") for name in weights if ".lora_A." in name}
    if derive.rank is not None:
        config |= _of_rank(config, derive.rank)
    made = dict(weights)
    for down, up in downs.items():
        a, b = weights[down], weights[up]
        if derive.rank is not None:
            a, b = truncated(a, b, derive.rank)
        made[down], made[up] = a.contiguous(), (b * derive.strength).contiguous()
    target.mkdir(parents=True, exist_ok=True)
    safetensors.torch.save_file(made, str(target / _WEIGHTS), metadata={"format": "pt"})
    (target / _CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def truncated(down: torch.Tensor, up: torch.Tensor, rank: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A (rank, inputs) and B (outputs, rank) whose product is nearest to `up` @ `down`, of shapes (outputs, r) and (r, inputs).

    Eckart-Young, through the QR decompositions of both factors: the SVD is of an r x r matrix. In float64, since the full rank
    is to give back the same adapter.
    """
    q_up, r_up = torch.linalg.qr(up.double())
    q_down, r_down = torch.linalg.qr(down.double().T)
    u, s, vh = torch.linalg.svd(r_up @ r_down.T)
    root = s[:rank].sqrt()
    return ((root[:, None] * vh[:rank]) @ q_down.T).to(down.dtype), (q_up @ (u[:, :rank] * root)).to(up.dtype)
