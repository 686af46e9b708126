"""Checkpoints for tests, and damage to them."""

from pathlib import Path

from trials.ledger.checkpoint import Saved


def as_saved(saved: Saved) -> Saved:
    return saved


def flipped(folder: Path) -> None:
    path = next(folder.glob("training-*.safetensors"))
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
