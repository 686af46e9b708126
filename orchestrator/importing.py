"""The command `slimsweep import`."""

import os
from pathlib import Path
from typing import Annotated, Literal

import typer

from orchestrator.console.terminal import Terminal, only_json
from orchestrator.finish import finish
from trials.ledger.storage import local, root


def import_command(
    folder: Annotated[
        Path,
        typer.Argument(
            help="The folder that `lm_eval --output_path DIR --log_samples` wrote.",
            show_default=False,
            parser=local,
            metavar="DIR",
        ),
    ],
    base: Annotated[
        str | None, typer.Option(help="The base: its name, or its folder below DIR. Default: the one below all adapters.")
    ] = None,
    storage: Annotated[str, typer.Option(help="Storage root: a folder, s3://..., gs://....")] = "runs",
    name: Annotated[str | None, typer.Option(help="The sweep's name. Default: that of DIR.")] = None,
    role: Annotated[
        list[str] | None, typer.Option(help="NAME=TASK[+TASK...][:METRIC[,FILTER]]. Default: a role for each task.")
    ] = None,
    objective: Annotated[
        list[str] | None, typer.Option(help='As "minimize math.drop". Default: the gain of each role.')
    ] = None,
    constraint: Annotated[list[str] | None, typer.Option(help='As "math.forgetting <= 0.10".')] = None,
    documents: Annotated[
        Literal["half", "all"] | None,
        typer.Option(
            help="half: one half picks the front, the other is reported. all: for a single tune.", show_default="half"
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Prints JSON.")] = False,
) -> None:
    """Imports what lm-eval measured of a base and its tunes, whoever trained them, and reports it as a sweep.

    Example: slimsweep import lm_eval_out --base meta-llama/Llama-3.2-1B --role math=gsm8k
    """
    import json

    from orchestrator.import_results import Request, import_results, sweep_name

    out, err = Terminal(width=None if os.isatty(1) else 160), Terminal(stderr=True)
    place = root(storage)
    request = Request(name or sweep_name(folder), base, role or (), objective or (), constraint or (), documents)
    with only_json(as_json):
        import_results(folder, place, request, lambda line: err.print(line, soft_wrap=True, markup=False))
        outcome = finish(place, request.name, None if as_json else out)
    if as_json:
        print(json.dumps(outcome, indent=1, allow_nan=False))
