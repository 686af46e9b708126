"""Writes a commented config to begin with."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from orchestrator.config import shipped
from orchestrator.console.terminal import Terminal
from trials.errors import InputError
from trials.ledger.storage import local


def init(
    kind: Annotated[
        Literal["quickstart", "paper"],
        typer.Argument(
            metavar="KIND", help="quickstart: minutes on a CPU, no download. paper: the paper's setting on Llama 3.2 1B."
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
    write(kind, path)
    Terminal().print(f"{path}: edit it, then: slimsweep plan {path}", markup=False, soft_wrap=True)


def write(kind: str, path: Path) -> None:
    """Copies the program's config of this name to `path`. Raises InputError where `path` exists."""
    text = (shipped.FOLDER / f"{kind}.yaml").read_text(encoding="utf-8")
    try:
        with path.open("x", encoding="utf-8") as file:  # creates exclusively: no check can be too early
            file.write(text)
    except FileExistsError:
        raise InputError(f"{path}: exists already, and init overwrites nothing; name another FILE") from None
