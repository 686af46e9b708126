"""GGUF files: each is converted once into a transformers folder, from which the base is loaded like any other.

transformers reads GGUF files but does not quantise them. The folder lies in the hub's cache under the file's checksum.
"""

import hashlib
import json
import tempfile
from pathlib import Path
from typing import Any

import huggingface_hub
import torch
import transformers
from huggingface_hub import constants
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError
from transformers import AutoConfig, AutoModelForCausalLM, GgufConfig
from transformers.utils import cached_file, is_gguf_available

from trials.errors import InputError
from trials.hub import fingerprint
from trials.hub.hub import Hub
from trials.models import pickles
from trials.spec import Base

TOKENIZER = ("tokenizer*", "special_tokens_map.json", "vocab.*", "merges.txt", "*.jinja", "config.json")
"""Optional files of a repository that are read beside the GGUF file."""


def file(base: Base, hub: Hub, *, fetch: bool = True) -> Path | None:
    """The path of base.gguf; None if it is not on this machine and `fetch` is false. Raises InputError."""
    assert base.gguf is not None
    if not is_gguf_available():
        raise InputError("base.gguf: reading GGUF files needs the package `gguf`: pip install gguf")
    folder = Path(hub.locate(base.model))
    if folder.is_dir():
        if not (folder / base.gguf).is_file():
            raise _no_file(base, [path.relative_to(folder).as_posix() for path in folder.rglob("*.gguf")])
        return folder / base.gguf
    try:
        found: Any = huggingface_hub.hf_hub_download(base.model, base.gguf, revision=base.revision, dry_run=not fetch)
    except LocalEntryNotFoundError as error:  # offline, and not in the cache
        raise hub.missing("base.model", base.model, error) from error
    except EntryNotFoundError as error:
        raise _no_file(base, huggingface_hub.list_repo_files(base.model, revision=base.revision)) from error
    except (OSError, ValueError) as error:
        raise hub.missing("base.model", base.model, error, base.revision) from error
    if fetch:
        return Path(found)
    return Path(found.local_path) if found.is_cached else None


def _no_file(base: Base, names: list[str]) -> InputError:
    there = ", ".join(sorted(name for name in names if name.endswith(".gguf"))) or "none"
    return InputError(f"base.gguf: {base.model} has no file {base.gguf!r}; its GGUF files: {there}")


def converted(base: Base, hub: Hub) -> tuple[Path, str]:
    """The folder with the file's weights in base.dtype, and the file's sha256; raises InputError if it cannot be read."""
    source = file(base, hub)
    assert source is not None
    digest = fingerprint.sha256(source)
    config = _config(base, hub)
    # everything that the converted weights depend on
    key = "|".join((digest, base.dtype, transformers.__version__, "" if config is None else config.read_text("utf-8")))
    place = Path(constants.HF_HOME) / "slimsweep" / "gguf" / hashlib.sha256(key.encode()).hexdigest()[:32]
    if not place.is_dir():
        place.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=place.parent) as making:
            _convert(base, source, config, Path(making) / "model")
            try:
                (Path(making) / "model").rename(place)  # atomic: other processes see no unfinished folder
            except OSError:
                if not place.is_dir():  # else another process was faster
                    raise
    return place, digest


def _convert(base: Base, source: Path, config: Path | None, target: Path) -> None:
    if config is None:
        _refuse_scaled_positions(base, source)
    try:
        with pickles.refused(base.model):
            model = AutoModelForCausalLM.from_pretrained(
                source.parent,
                gguf_file=source.name,
                config=None if config is None else AutoConfig.from_pretrained(config),
                dtype=getattr(torch, base.dtype),
                quantization_config=GgufConfig(dequantize=True),
                trust_remote_code=False,
            )
    except (ValueError, KeyError, NotImplementedError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"base.gguf: {source.name} of {base.model} cannot be read by transformers: {reason}") from error
    model.save_pretrained(target)


def tokenizer_arguments(base: Base, hub: Hub) -> dict[str, Any]:
    """Arguments of AutoTokenizer.from_pretrained: the repository's tokenizer if it has one, else the file's."""
    path = hub.locate(base.model)
    if any(_beside(path, name, base.revision) for name in ("tokenizer.json", "tokenizer.model")):
        return {"pretrained_model_name_or_path": path, "revision": base.revision or "main"}
    source = file(base, hub)
    assert source is not None
    return {"pretrained_model_name_or_path": source.parent, "gguf_file": source.name}


def _config(base: Base, hub: Hub) -> Path | None:
    """The repository's config.json, unless it names only the model's type, as some beside GGUF files do."""
    path = _beside(hub.locate(base.model), "config.json", base.revision)
    return path if path is not None and len({"hidden_size", "n_embd"} & json.loads(path.read_text("utf-8")).keys()) else None


def _beside(path: str, name: str, revision: str | None) -> Path | None:
    found = cached_file(path, name, revision=revision or "main", _raise_exceptions_for_missing_entries=False)
    return None if found is None else Path(found)


def _refuse_scaled_positions(base: Base, source: Path) -> None:
    """Raises InputError for scaled rotary positions: Llama 3.1 stores the factors as a tensor that transformers ignores."""
    from gguf import GGUFReader

    reader = GGUFReader(source)
    kinds = [field.contents() for name, field in reader.fields.items() if name.endswith(".rope.scaling.type")]
    if any(tensor.name.startswith("rope_freqs") for tensor in reader.tensors) or any(kind != "none" for kind in kinds):
        raise InputError(
            f"base.gguf: {source.name} of {base.model} scales its rotary positions, which transformers does not read from a "
            "GGUF file; put the model's config.json beside it"
        )
