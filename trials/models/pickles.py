"""Refuses pickled weights: reading a pickle can run code, and others may have written it. safetensors hold numbers alone."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from trials.errors import InputError
from trials.hub.hub import Hub
from trials.spec import Base

_PICKLED = ("*.bin", "*.pt", "*.pth")
_OF_TRAINING = "training_args.bin"  # beside the weights of many models, and never read
_NO_SAFETENSORS = ("cannot be loaded with `safetensors`", "no file named model.safetensors")
"""What transformers says of a repository and of a folder without safetensors."""


def check(base: Base, hub: Hub) -> None:
    """Raises InputError for a folder whose weights are pickles alone. Those of the hub are checked when they are loaded."""
    folder = Path(hub.locate(base.model))
    if base.gguf is not None or not folder.is_dir() or any(folder.glob("*.safetensors")):
        return
    for path in sorted(path for pattern in _PICKLED for path in folder.glob(pattern)):
        if path.name != _OF_TRAINING:
            raise _refusal(base.model, path)


@contextmanager
def refused(model: str) -> Iterator[None]:
    """Within it transformers reads no pickle. Raises InputError where the base `model` has no other weights."""
    library: Any = torch
    read = library.load

    def refuse(file: Any, *_: Any, **__: Any) -> None:
        raise _refusal(model, file)

    # The one function by which transformers reads pickles. A folder reaches it by many ways: an index of safetensors that
    # names .bin files, an adapter of the hub, a setting of config.json.
    library.load = refuse
    try:
        yield
    except OSError as error:
        if any(reason in str(error) for reason in _NO_SAFETENSORS):
            raise InputError(
                f"base.model {model!r} has no weights in safetensors (model.safetensors); pickles such as pytorch_model.bin "
                "are never read: convert them, or name a model that has safetensors"
            ) from error
        raise
    finally:
        library.load = read


def _refusal(model: str, file: Any) -> InputError:
    return InputError(
        f"base.model {model!r}: {file} is a pickle, and reading one can run code; convert the weights to safetensors "
        "(model.save_pretrained), or name a model that has them"
    )
