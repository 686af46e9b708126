"""The command `slimsweep confirm`: trains the settings of a sweep's front again under fresh seeds, as a sweep of its own."""

import json
import os
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestrator.config.model import SweepConfig
from orchestrator.console.terminal import Terminal, only_json
from orchestrator.errors import SweepFailed
from trials import dotted_path
from trials.errors import InputError
from trials.ledger.storage import read_text, root
from trials.yaml_file import YamlFile

if TYPE_CHECKING:
    from analysis.results.sweep import Sweep

_SEARCHING = ("trials", "gpu_hours", "hours", "first")
"""Fields of `search` that say how to find a setting, not how to measure it."""


def confirm(
    folder: Annotated[
        str, typer.Argument(help="A sweep's folder: runs/quickstart, s3://bucket/runs/sweep.", show_default=False)
    ],
    seeds: Annotated[int, typer.Option(min=1, max=1000, help="Trainings of each setting.")] = 3,
    address: Annotated[
        str | None, typer.Option(help="Ray cluster: auto, HOST:PORT or ray://HOST:PORT. Default: this machine.")
    ] = None,
    events: Annotated[str | None, typer.Option(metavar="FILE", help="Appends a JSON line for every event.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Prints JSON.")] = False,
) -> None:
    """Trains the front's settings again under fresh seeds. The report shows them as found and as confirmed.

    The same command again resumes it.

    Example: slimsweep confirm runs/quickstart --seeds 3
    """
    from analysis.explore import confirmation
    from analysis.report.build import write_report
    from analysis.results.load import load
    from orchestrator import api
    from orchestrator.console.front_table import as_terminal

    out, err = Terminal(width=None if os.isatty(1) else 160), Terminal(stderr=True)
    found = load(root(folder))
    try:
        with only_json(as_json):
            how = api.Driving(address, err if as_json else out, show=False, events=events)
            ran = api.drive(confirming(found, seeds), found.folder.parent, how)
    except KeyboardInterrupt:
        err.print("stopped; the same command resumes it")
        raise typer.Exit(130) from None
    ran.check()
    found = load(root(folder))  # it may have gone on meanwhile
    one = confirmation.confirmation(found)
    if one is None:
        raise SweepFailed(f"{ran.name}: no setting was trained to its end; slimsweep status {ran.place}/{ran.name} says why")
    path = write_report(found)
    if as_json:
        print(json.dumps(confirmation.as_dict(one) | {"report": str(path)}, indent=1, allow_nan=False))
        return
    for line in confirmation.sentences(one):
        out.print(line, soft_wrap=True)
    out.print(as_terminal(confirmation.table(one), f"{found.name}: found and confirmed"))
    out.print(str(path), soft_wrap=True)


def confirming(found: "Sweep", seeds: int) -> SweepConfig:
    """The sweep of the front's settings under `seeds` seeds that `found` has not used.

    A confirmation that began earlier goes on with its own seeds. InputError where it confirms another front.
    """
    from analysis.explore.confirmation import SEEDS, folder_of
    from orchestrator import api

    points = _points(found, SEEDS)
    data = _config(found)
    earlier = _earlier(found)
    fresh = 1 + max(max(record.spec.data.seed, record.spec.train.seed) for record in found.records.values())
    for path in SEEDS:
        dotted_path.write(data, path, fresh if earlier is None else dotted_path.read(earlier, path, fresh))
    trained = {name: value for name, value in data["search"].items() if name not in _SEARCHING}
    whole = {"racing": False, "multi_fidelity": False}  # each is measured to its end
    data["search"] = {**trained, **whole, "sampler": "grid", "replicates": seeds}
    data["derive"] = _derived(points)
    data["name"] = folder_of(found).name
    data["about"] = {"confirms": found.name}
    data["space"] = {
        "_": [{path: value for path, value in point.items() if not path.startswith("derive.")} for point in points]
    }
    data["space"]["_"] = list({repr(point): point for point in data["space"]["_"]}.values())
    if earlier is not None:
        before = [dotted_path.read(earlier, path) for path in ("space", "search.replicates")]
        if before != [data["space"], seeds]:
            raise InputError(
                f"{folder_of(found)}: it confirms other settings or under another number of seeds ({before[1]}); rename it, "
                "and the same command begins anew"
            )
    return api.config(data)


def _earlier(found: "Sweep") -> dict[str, Any] | None:
    """The config of the confirmation that lies beside the sweep; None without one."""
    from analysis.explore.confirmation import confirms, folder_of

    try:
        text = read_text(folder_of(found) / "sweep.yaml")
    except FileNotFoundError:
        return None
    return dict(YamlFile(folder_of(found) / "sweep.yaml", text=text).data) if confirms(text) == found.name else None


def _config(found: "Sweep") -> dict[str, Any]:
    file = YamlFile(found.folder / "sweep.yaml", text=found.config)
    if not isinstance(file.data.get("search"), dict):
        raise InputError(f"{file.path}: it is no config any more; the command that ran the sweep writes it again")
    return dict(file.data)


def _points(found: "Sweep", seeds: tuple[str, ...]) -> list[dict[str, Any]]:
    """The settings of the front's trials, each with the same paths."""
    if not len(found.front):
        raise InputError(f"{found.folder}: its front has no trial, so there is nothing to confirm")
    if not found.config:
        raise InputError(
            f"{found.folder}: it has no sweep.yaml; results that were imported are trained again where they came from"
        )
    if set(found.space) <= set(seeds):
        raise InputError(f"{found.folder}: its space has seeds alone, so there is no setting to confirm")
    points = []
    for row in found.front.to_dict("records"):
        # the spec has a value for each path, also where a condition of the space left it out
        spec = found.records[row["key"]].spec.model_dump(mode="json")
        points.append({path: dotted_path.read(spec, path) for path in found.space if path not in seeds})
    return points


def _derived(points: list[dict[str, Any]]) -> dict[str, Any]:
    """The section `derive` that measures these points again: the values that occur, beside the adapter as trained."""
    values: dict[str, list[Any]] = {}
    for point in points:
        for path, value in point.items():
            if path.startswith("derive.") and value not in (None, *values.setdefault(path.removeprefix("derive."), [])):
                values[path.removeprefix("derive.")].append(value)
    return {
        name: [one for one in several if not (name == "strength" and one == 1.0)] for name, several in values.items() if several
    }
