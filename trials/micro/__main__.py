"""Makes the miniature base from nothing: `python -m trials.micro [FOLDER]`, about 10 minutes on two CPU cores.

Writes FOLDER/micro: the data sets, the tokenizer, the weights and their checksums. Without FOLDER it is this package's `hub`.
"""

import argparse
import hashlib
import shutil
from pathlib import Path
from typing import Any

import torch
import yaml

from trials.micro import datasets, pretrain

HERE = Path(__file__).parent


def effect_setting() -> dict[str, Any]:
    """The TrialSpec, as plain data, at which the shipped weights must show the paper's effect (tests/test_micro.py)."""
    return yaml.safe_load((HERE / "effect.yaml").read_text())


def checksums(folder: Path) -> str:
    """sha256 of every file that the recipe makes, in sha256sum's format."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name not in ("SHA256SUMS", "README.md"))
    return "".join(
        f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(folder).as_posix()}\n" for path in files
    )


def main(target: Path) -> None:
    torch.set_num_threads(2)
    folder = target / "micro"
    folder.mkdir(parents=True, exist_ok=True)
    datasets.write(folder)
    tokenizer, model = pretrain.pretrain()
    tokenizer.save_pretrained(folder)
    model.save_pretrained(folder)
    card = HERE / "hub" / "micro" / "README.md"
    if card.exists() and card.parent.resolve() != folder.resolve():
        shutil.copy(card, folder / "README.md")
    (folder / "SHA256SUMS").write_text(checksums(folder))
    print(f"{model.num_parameters():,} parameters in {folder}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m trials.micro", description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=HERE / "hub")
    main(parser.parse_args().folder)
