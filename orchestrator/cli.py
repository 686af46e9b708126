"""The command line: `slimsweep COMMAND --help` shows an example of each.

Exit codes: 0 done, 1 a sweep or trial failed, 2 bad input. With --json, standard output holds JSON alone.
"""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))  # noqa: PTH100, PTH120  # finds our own `trials`
import trials.search_path  # noqa: F401  # before anything that a file in the working folder may shadow

# isort: split
import json
import time
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from orchestrator.console.front_table import front_table
from orchestrator.console.terminal import Terminal, only_json
from orchestrator.errors import SweepFailed
from orchestrator.finish import finish
from trials import command
from trials.errors import InputError
from trials.ledger.storage import expanded, local, root
from trials.printable import one_line

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode="rich", pretty_exceptions_enable=False)
out = Terminal(width=None if os.isatty(1) else 160)
err = Terminal(stderr=True)

Config = Annotated[Path, typer.Argument(help="The sweep's YAML file.", show_default=False, parser=local, metavar="CONFIG")]
Folder = Annotated[
    str, typer.Argument(help="A sweep's folder: runs/quickstart, s3://bucket/runs/quickstart.", show_default=False)
]
Override = Annotated[list[str] | None, typer.Option("--set", metavar="PATH=VALUE", help="Changes one value of the config.")]
Storage = Annotated[str | None, typer.Option(help="Storage root: a folder, s3://..., gs://...; the config's when left out.")]
Address = Annotated[
    str | None, typer.Option(help="A Ray cluster: auto, HOST:PORT or ray://HOST:PORT. This machine when left out.")
]
Events = Annotated[str | None, typer.Option(metavar="FILE", help="Appends a JSON line for every event.")]
AsJson = Annotated[bool, typer.Option("--json", help="Prints JSON.")]

Scale = Literal["full", "small"]

_WATCH = 5.0  # seconds


def _print_json(value: Any) -> None:
    print(json.dumps(value, indent=1, allow_nan=False))


@app.callback()
def _slimsweep() -> None:
    """Finds fine-tuning settings that keep what a small language model gains and limit what it forgets."""


@app.command()
def run(
    config: Config,
    override: Override = None,
    storage: Storage = None,
    address: Address = None,
    events: Events = None,
    as_json: AsJson = False,
) -> None:
    """Runs a sweep, or goes on with one that was cut off: the same command again is the resume.

    Ctrl-C once lets the running trials finish, twice stops at once.

    Example: slimsweep run configs/quickstart.yaml --set search.trials=20
    """
    from orchestrator.config.model import load
    from orchestrator.run import drive

    sweep_config = load(config, override or [])
    place = root(storage or sweep_config.storage)
    console = err if as_json else out
    try:
        with only_json(as_json):
            if address is not None and address.startswith("ray://"):
                from orchestrator.submit import run_through_client

                left, outcome = run_through_client(sweep_config, str(place), address, console, events, show=not as_json)
            else:
                left = drive(sweep_config, place, address, console, events)
                outcome = finish(place, sweep_config.name, None if as_json else out)
    except KeyboardInterrupt:
        err.print("stopped; the same command goes on where it was")
        raise typer.Exit(130) from None
    if as_json:
        _print_json(outcome)
    if left:
        raise SweepFailed(f"{sweep_config.name}: stopped with {left} still to run; the same command goes on with them")
    if outcome["failed"] and not outcome["complete"]:
        raise SweepFailed(f"{sweep_config.name}: every trial failed; slimsweep status {place}/{sweep_config.name} says why")


@app.command()
def submit(
    config: Config,
    address: Annotated[str, typer.Option(help="The cluster's dashboard, http://HOST:8265.", show_default=False)],
    override: Override = None,
    storage: Storage = None,
    events: Events = None,
) -> None:
    """Runs a sweep as a Ray job: its log appears here, its exit code is this command's. The same command again is the resume.

    Example: slimsweep submit configs/quickstart.yaml --address http://127.0.0.1:8265 --storage s3://bucket/runs
    """
    from orchestrator.config.model import load
    from orchestrator.submit import submit as submit_job

    sweep_config = load(config, override or [])

    def say(line: str) -> None:
        out.print(line, soft_wrap=True)

    place = expanded(storage or sweep_config.storage, "storage")
    raise typer.Exit(submit_job(sweep_config, place, address, say, events and expanded(events, "--events")))


@app.command()
def plan(
    config: Config,
    override: Override = None,
    storage: Storage = None,
    gpu: Annotated[str | None, typer.Option(help="The kind of GPU, such as H100; this machine's when left out.")] = None,
    price_per_gpu_hour: Annotated[float | None, typer.Option(min=0.0, help="Tells what the sweep costs.")] = None,
    gpus: Annotated[int | None, typer.Option(min=1, help="Simulates the sweep on so many GPUs.")] = None,
    deaths_per_hour: Annotated[
        float, typer.Option(min=0.0, help="How often a worker dies in that, 0.05 on spot machines.")
    ] = 0.01,
    as_json: AsJson = False,
) -> None:
    """Shows what would run, before it does: trials, time, money, memory, disk; with --gpus, how it would go on so many.

    Example: slimsweep plan configs/quickstart.yaml --gpu L4 --price-per-gpu-hour 0.8 --gpus 1000 --set search.trials=10000
    """
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    from orchestrator.config.model import load
    from orchestrator.console import plan_table
    from orchestrator.planning.plan import plan as plan_sweep
    from orchestrator.sweep.begun import pinned

    sweep_config = load(config, override or [], gpu)
    place = root(storage or sweep_config.storage)
    sweep_config = pinned(sweep_config, place)
    found = plan_sweep(sweep_config, place, gpu, price_per_gpu_hour, count=gpus, deaths_per_hour=deaths_per_hour)
    if as_json:
        _print_json(found.as_dict())
        return
    out.print(plan_table.table(found, sweep_config))
    for line in plan_table.lines(found):
        out.print(line, soft_wrap=True)


@app.command()
def status(
    folder: Folder,
    watch: Annotated[bool, typer.Option("--watch", help="Shows it again every few seconds, until Ctrl-C.")] = False,
    as_json: AsJson = False,
) -> None:
    """Shows a sweep's progress, failures and the front so far.

    Example: slimsweep status runs/quickstart
    """
    from analysis.results.load import load

    if as_json:
        _print_json(_status(load(root(folder))))
        return
    if not watch:
        _print_status(load(root(folder)))
        return
    try:
        while True:
            sweep = load(root(folder))
            out.clear()
            _print_status(sweep)
            time.sleep(_WATCH)
    except KeyboardInterrupt:
        return


def _status(sweep: Any) -> dict[str, Any]:
    from analysis.export.files import front_rows

    states = {state.replace(" ", "_"): count for state, count in sweep.states.items()}
    failures = sweep.failures.drop(columns="traceback", errors="ignore").to_dict("records")
    return {"budget": sweep.budget, **states, "failures": failures, "front": front_rows(sweep)}


def _print_status(sweep: Any) -> None:
    found = _status(sweep)
    # what is derived from a training does not count against the budget, so there may be more trials than that
    of = f" of {max(found['budget'], len(sweep.trials))}" if found["budget"] is not None else ""
    given_up = f"{found['given_up']} given up by racing, " if found["given_up"] else ""
    ended = f"{found['complete']}{of} trials complete, {found['failed']} failed"
    out.print(f"{sweep.name}: {ended}, {given_up}{found['pending']} open")
    for failure in found["failures"]:
        key = f" ({failure['key']})" if failure["key"] else ""
        out.print("  " + one_line(f"{failure['what']}{key}: {failure['kind']}: {failure['message']}"), soft_wrap=True)
    out.print(front_table(sweep))


@app.command()
def replay(
    folder: Folder,
    orders: Annotated[int, typer.Option(min=1, help="Random orders of the points that it is replayed in.")] = 10,
    as_json: AsJson = False,
) -> None:
    """Replays a finished sweep under levers that spend less on losers: what they save, and whether they find the front.

    Example: slimsweep replay runs/quickstart
    """
    from analysis.explore.replay import saving, stored
    from analysis.results.load import load
    from orchestrator.console import replay_table

    found = stored(load(root(folder)))
    rows = list(saving(found, orders))
    if as_json:
        _print_json({"points": len(found.points), "front": len(found.front), "orders": orders, "levers": rows})
    else:
        out.print(replay_table.table(rows))
        out.print(replay_table.words(found, orders))


@app.command()
def front(
    folder: Folder,
    formats: Annotated[
        str, typer.Option("--format", help="Of csv, json, parquet, html, png, svg, tex, md, study, with commas.")
    ] = "csv,json,parquet,html,png",
    trials: Annotated[bool, typer.Option("--trials", help="All trials too, as those of csv, json, parquet.")] = False,
    figures: Annotated[bool, typer.Option("--figures", help="Every figure too, as PNG, SVG and CSV.")] = False,
    as_json: AsJson = False,
) -> None:
    """Exports the Pareto front: as tables, as a page, as a figure, and as an Optuna study (optuna.db).

    Example: slimsweep front runs/quickstart --format csv,tex,svg --trials --figures
    """
    from analysis.export.files import export, export_figures, export_trials, front_rows
    from analysis.results.load import load

    sweep = load(root(folder))
    wanted = [name.strip() for name in formats.split(",")]
    written = export(sweep, wanted)
    written += export_trials(sweep, wanted) if trials else []
    written += export_figures(sweep) if figures else []
    if as_json:
        _print_json(front_rows(sweep))
        return
    out.print(front_table(sweep))
    for path in written:
        out.print(str(path), soft_wrap=True)


@app.command()
def report(folder: Folder, as_json: AsJson = False) -> None:
    """Writes the sweep's report: one HTML file that needs no network.

    Example: slimsweep report runs/quickstart
    """
    from analysis.report.build import write_report
    from analysis.results.load import load

    path = write_report(load(root(folder)))
    if as_json:
        _print_json({"file": str(path)})
    else:
        out.print(str(path), soft_wrap=True)


@app.command()
def publish(
    folder: Folder,
    key: Annotated[
        str, typer.Argument(help="A record's key, a beginning of it, or a trial's number (#7).", show_default=False)
    ],
    to: Annotated[
        Path | None, typer.Option(help="The folder to make; published/SWEEP-KEY when left out.", parser=local, metavar="DIR")
    ] = None,
    hub: Annotated[str | None, typer.Option(metavar="ORG/NAME", help="Uploads the folder to the hub as well.")] = None,
    public: Annotated[bool, typer.Option("--public", help="Makes a new repository on the hub public.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Even if the merged model does not score as the adapter.")] = False,
    as_json: AsJson = False,
) -> None:
    """Merges an adapter into its base's 16-bit weights, scores the merged model again and writes it with a model card.

    Example: slimsweep publish runs/quickstart "#7" --to my-model
    """
    from analysis.results.load import load
    from orchestrator import publish as publishing

    console = err if as_json else out

    def say(line: str) -> None:
        console.print(line, soft_wrap=True)

    told = publishing.publish(load(root(folder)), key, to, hub, public, force, say)
    if as_json:
        _print_json(told)
        return
    out.print(publishing.table(told))
    say(told["url"] or told["folder"])


@app.command()
def ablate(
    name: Annotated[
        str | None, typer.Argument(help="An ablation, or all; a list of them when left out.", show_default=False)
    ] = None,
    base: Annotated[
        str | None,
        typer.Option(help="micro, smollm2, a base of configs/ablations/frame.yaml, or ORG/NAME; its own when left out."),
    ] = None,
    scale: Annotated[Scale, typer.Option(help="full, or small: the same design with fewer levels and seeds.")] = "full",
    storage: Storage = None,
    address: Address = None,
    events: Events = None,
    hub_mirror: Annotated[
        str | None, typer.Option(metavar="DIR", help="Folder laid out as org/name, read before the hub.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Lists the paper's ablations, or runs one (or all) and answers its questions; the same command again is the resume.

    Example: slimsweep ablate q1 --base micro
    """
    from orchestrator.ablations import run as ablating
    from orchestrator.ablations.design import Ablations

    ablations, place = Ablations(), str(root(storage or "runs"))
    if name is None:
        found = list(ablating.rows(ablations, place, base, scale))
        if as_json:
            _print_json(found)
        else:
            out.print(ablating.table(found))
            trials, distinct = ablating.shared(ablations, base, scale)
            out.print(
                f"{trials} trials, {distinct} of them distinct: what several ask for is run once. Hours as plan counts them."
            )
        return
    planned = [one for several in ablating.each(ablations, name.lower(), base, scale) for one in several]
    console = err if as_json else out
    try:
        with only_json(as_json):
            lost = ablating.run(planned, place, address, console, events, hub_mirror)
    except KeyboardInterrupt:
        err.print("stopped; the same command goes on where it was")
        raise typer.Exit(130) from None
    told, written = ablating.write(ablations, planned, place, base, scale)
    wanted = {one.ablation.name for one in planned}
    if as_json:
        _print_json(ablating.as_dict(told, wanted))
    else:
        ablating.say(told, wanted, lambda line: out.print(line, soft_wrap=True))
        out.print(str(written[0]), soft_wrap=True)
    if lost:
        raise SweepFailed(f"every trial of {', '.join(lost)} failed; slimsweep status {place}/{lost[0]} says why")


@app.command()
def compare(
    folder: Folder,
    other: Annotated[str, typer.Argument(help="The other sweep's folder.", show_default=False)],
    to: Annotated[
        Path, typer.Option(help="Where the page, the pictures and the numbers go.", parser=local, metavar="DIR")
    ] = Path("compare"),
    as_json: AsJson = False,
) -> None:
    """Lays two sweeps' fronts over each other and says which is better, as far as that can be said.

    Example: slimsweep compare runs/plain runs/replay --to compare
    """
    from analysis.explore.compare import as_dict, verdict
    from analysis.explore.compare import compare as compare_sweeps
    from analysis.report import compare_page
    from analysis.results.load import load

    found = compare_sweeps(load(root(folder)), load(root(other)))
    written = compare_page.write(found, to)
    if as_json:
        _print_json(as_dict(found))
        return
    for line in (verdict(found), *found.warnings, *map(str, written)):
        out.print(line, soft_wrap=True)


def main() -> None:
    sys.exit(command.run(_run))


def _run() -> int:
    """The exit code of the command that the arguments name."""
    try:
        app()
    except SystemExit as ended:
        return int(ended.code or 0)
    except InputError as error:
        err.print(str(error), soft_wrap=True)
        return 2
    except OSError as error:
        err.print(f"{error.filename or 'storage'}: {error.strerror or error}", soft_wrap=True)
        return 2
    except SweepFailed as error:
        err.print(str(error), soft_wrap=True)
        return 1
    return 0


if __name__ == "__main__":
    main()
