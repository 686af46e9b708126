"""Makes the miniature base, or a variant, from scratch: `python -m trials.micro [FOLDER]`, 10 minutes on two CPU cores.

Writes tokenizer, weights and checksums to FOLDER/VARIANT, and for `micro` the data sets. FOLDER defaults to this package's
`hub`. A variant has another pretraining text or seed; it shares tokenizer and data sets with micro.
"""

import argparse
import hashlib
import shutil
from pathlib import Path

import torch
from transformers import PreTrainedTokenizerFast

from trials.micro import datasets, pretrain

HERE = Path(__file__).parent
TOKENIZER = ("tokenizer.json", "tokenizer_config.json")


def checksums(folder: Path) -> str:
    """sha256 of every file that the recipe makes, in sha256sum's format."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name not in ("SHA256SUMS", "README.md"))
    return "".join(
        f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(folder).as_posix()}\n" for path in files
    )


def main(target: Path, name: str) -> None:
    torch.set_num_threads(2)  # sums, and so the weights, depend on the number of threads
    folder = target / name
    folder.mkdir(parents=True, exist_ok=True)
    if name == "micro":
        datasets.write(folder)
        tokenizer = pretrain.train_tokenizer()
        tokenizer.save_pretrained(folder)
        model = pretrain.pretrain(pretrain.VARIANTS[name], tokenizer)
    else:
        for file in TOKENIZER:
            shutil.copy(HERE / "hub" / "micro" / file, folder / file)
        tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
        model = pretrain.pretrain(pretrain.VARIANTS[name], tokenizer).half()  # halves the file; a trial sets its own precision
    model.save_pretrained(folder)
    card = HERE / "hub" / name / "README.md"
    if card.exists() and card.parent.resolve() != folder.resolve():
        shutil.copy(card, folder / "README.md")
    (folder / "SHA256SUMS").write_text(checksums(folder))
    print(f"{model.num_parameters():,} parameters in {folder}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m trials.micro", description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=HERE / "hub")
    parser.add_argument("--variant", choices=pretrain.VARIANTS, default="micro")
    arguments = parser.parse_args()
    main(arguments.folder, arguments.variant)
