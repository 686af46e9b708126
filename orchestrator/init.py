"""Writes a commented config to begin with, and the files that it names."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from orchestrator.config import shipped
from orchestrator.console.terminal import Terminal
from trials.errors import InputError
from trials.ledger.storage import local


def init(
    kind: Annotated[
        Literal["quickstart", "paper", "chat"],
        typer.Argument(
            metavar="KIND",
            help="quickstart: minutes on a CPU, no download. paper: the paper's setting on Llama 3.2 1B. "
            "chat: your conversations and your task, with examples of both.",
        ),
    ] = "quickstart",
    file: Annotated[
        Path | None,
        typer.Argument(help="The file to write. Default: KIND.yaml.", parser=local, metavar="FILE", show_default=False),
    ] = None,
) -> None:
    """Writes a commented config to begin with. Never overwrites a file.

    Example: slimsweep init quickstart my-sweep.yaml
    """
    path = file or Path(f"{kind}.yaml")
    say = Terminal().print
    for written in write(kind, path):
        say(str(written), soft_wrap=True)
    say(f"edit it, then: slimsweep plan {path}", soft_wrap=True)


def write(kind: str, path: Path) -> list[Path]:
    """Copies the program's config of this name to `path`, and the files that it names beside it. Returns what it wrote.

    Raises InputError where one of them exists; then it writes nothing.
    """
    folder = shipped.FOLDER / kind
    own = [one for one in sorted(folder.rglob("*")) if one.is_file() and "__pycache__" not in one.parts and one.stem != kind]
    config = folder / f"{kind}.yaml" if folder.is_dir() else shipped.FOLDER / f"{kind}.yaml"
    targets = {path: config} | {path.parent / one.relative_to(folder): one for one in own}
    for target in targets:
        if target.exists() or target.is_symlink():
            raise InputError(f"{target}: exists already, and init overwrites nothing; name a FILE in another folder")
    for target, source in targets.items():
        if target != path:
            target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("x", encoding="utf-8") as written:  # exclusively: it may have come in the meantime
            written.write(source.read_text(encoding="utf-8"))
    return list(targets)
