"""The command `slimsweep gate`."""

import os
from typing import Annotated

import typer

from orchestrator.config.shipped import find
from orchestrator.console.terminal import Terminal
from trials.ledger.storage import is_local, root

_CODES = {"holds": 0, "broken": 1, "cannot tell": 3}


def gate(
    sweep: Annotated[str, typer.Argument(help="A sweep's folder, or its config.", show_default=False, metavar="CONFIG|DIR")],
    require: Annotated[
        list[str], typer.Option(help='As "math.forgetting <= 0.05"; several may be given.', show_default=False, metavar="TEXT")
    ],
    trial: Annotated[
        str,
        typer.Option(help="A key, its first characters, a number (#5), an imported model, or best: the first of the front."),
    ] = "best",
    storage: Annotated[str | None, typer.Option(help="Storage root of a CONFIG's sweep. Default: the config's.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Prints JSON.")] = False,
) -> None:
    """Decides by 95 % intervals whether a trial keeps requirements: exit code 0 holds, 1 broken, 3 cannot tell, 2 bad input.

    Example: slimsweep gate runs/quickstart --require "math.forgetting <= 0.05" --require "commonsense.gain >= 0"
    """
    import json

    from analysis.explore import gate as judging
    from analysis.results.load import load

    place = root(sweep)
    if is_local(place) and (file := find(sweep)).is_file():
        from orchestrator.config.load import load as load_config

        config = load_config(file)
        place = root(storage or config.storage) / config.name
    found = judging.gate(load(place), require, trial)
    if as_json:
        print(json.dumps(judging.as_dict(found), indent=1, allow_nan=False))
    else:
        out = Terminal(width=None if os.isatty(1) else 160)
        for line in judging.lines(found):
            out.print(line, soft_wrap=True)
    raise typer.Exit(_CODES[found.decision])
