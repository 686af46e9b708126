"""The command line: `slimsweep COMMAND --help` shows an example of each.

Exit codes: 0 done, 1 a sweep or trial failed or was stopped, 130 stopped at once, 2 bad input (for front, report, compare and
gate also a sweep without a complete trial); gate adds 3. With --json, standard output holds JSON alone.
"""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))  # noqa: PTH100, PTH120  # finds our own `trials`
import trials.search_path  # noqa: F401  # before anything that a file in the working folder may shadow

# isort: split
import importlib.metadata
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from orchestrator.config.late_errors import placed
from orchestrator.config.shipped import find
from orchestrator.confirm import confirm
from orchestrator.console.front_table import front_table
from orchestrator.console.terminal import Terminal, only_json
from orchestrator.errors import SweepFailed
from orchestrator.gate import gate
from orchestrator.importing import import_command
from orchestrator.init import init
from orchestrator.logs import logs
from trials import command
from trials.errors import InputError, system_errors_are_input
from trials.ledger.storage import expanded, local, root

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode="rich", pretty_exceptions_enable=False)
out = Terminal(width=None if os.isatty(1) else 160)
err = Terminal(stderr=True)
app.command()(init)
app.command()(logs)

Config = Annotated[Path, typer.Argument(help="The sweep's YAML file.", show_default=False, parser=find, metavar="CONFIG")]
Folder = Annotated[str, typer.Argument(help="A sweep's folder: runs/quickstart, s3://bucket/runs/sweep.", show_default=False)]
Override = Annotated[list[str] | None, typer.Option("--set", metavar="PATH=VALUE", help="Changes one value of the config.")]
Storage = Annotated[str | None, typer.Option(help="Storage root: a folder, s3://..., gs://.... Default: the config's.")]
Address = Annotated[str | None, typer.Option(help="Ray cluster: auto, HOST:PORT or ray://HOST:PORT. Default: this machine.")]
Events = Annotated[str | None, typer.Option(metavar="FILE", help="Appends a JSON line for every event.")]
AsJson = Annotated[bool, typer.Option("--json", help="Prints JSON.")]


def _print_json(value: Any) -> None:
    print(json.dumps(value, indent=1, allow_nan=False))


@contextmanager
def _stoppable() -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        err.print("stopped; the same command resumes it")
        raise typer.Exit(130) from None


def _print_version(requested: bool) -> None:
    if not requested:
        return
    try:
        print(f"slimsweep {importlib.metadata.version('slimsweep')}")
    except importlib.metadata.PackageNotFoundError:  # run from its folder
        raise InputError("slimsweep is not installed here, so its version is unknown; make setup or pip install it") from None
    raise typer.Exit


@app.callback()
def _slimsweep(
    version: Annotated[
        bool, typer.Option("--version", help="Prints the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
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
    """Runs a sweep. The same command again resumes it.

    Ctrl-C once lets the running trials finish, twice stops at once.

    Example: slimsweep run configs/quickstart.yaml --set search.trials=20
    """
    from orchestrator import api

    sweep_config = api.config(config, override or [])
    with _stoppable(), only_json(as_json), placed(config, override or []):
        ran = api.drive(sweep_config, storage, api.Driving(address, err if as_json else out, not as_json, events))
    if as_json:
        _print_json(ran.outcome)
    ran.check()


@app.command()
def submit(
    config: Config,
    address: Annotated[str, typer.Option(help="The cluster's dashboard, http://HOST:8265.", show_default=False)],
    override: Override = None,
    storage: Storage = None,
    events: Events = None,
) -> None:
    """Runs a sweep as a Ray job and shows its log. The exit code is the job's. The same command again resumes the sweep.

    Example: slimsweep submit configs/quickstart.yaml --address http://127.0.0.1:8265 --storage s3://bucket/runs
    """
    from orchestrator.api import config as load
    from orchestrator.submit import ClusterSweep
    from orchestrator.submit import submit as submit_job

    sweep_config = load(config, override or [])

    def say(line: str) -> None:
        out.print(line, soft_wrap=True)

    place = expanded(storage or sweep_config.storage, "storage")
    remote = ClusterSweep(sweep_config, place, events and expanded(events, "--events"))
    raise typer.Exit(submit_job(remote, address, say))


@app.command()
def plan(
    config: Config,
    override: Override = None,
    storage: Storage = None,
    gpu: Annotated[str | None, typer.Option(help="Kind of GPU, such as H100. Default: this machine's.")] = None,
    price_per_gpu_hour: Annotated[
        float | None, typer.Option(min=0.0, help="Price of one, in any currency: shows the cost of the sweep.")
    ] = None,
    gpus: Annotated[int | None, typer.Option(min=1, help="Simulates the sweep on this many GPUs.")] = None,
    deaths_per_hour: Annotated[
        float, typer.Option(min=0.0, help="Deaths of a simulated worker; 0.05 on spot machines.")
    ] = 0.01,
    as_json: AsJson = False,
) -> None:
    """Plans a sweep before it runs: trials, time, money, memory, disk; with --gpus, a simulation.

    Example: slimsweep plan configs/quickstart.yaml --gpu L4 --price-per-gpu-hour 0.8 --gpus 1000 --set search.trials=10000
    """
    from orchestrator import api
    from orchestrator.planning.plan import Gpus

    sweep_config = api.config(config, override or [], gpu)
    with placed(config, override or []):
        found = api.plan(sweep_config, storage, Gpus(gpu, price_per_gpu_hour, gpus, deaths_per_hour))
    if as_json:
        _print_json(found.as_dict())
    else:
        found.show(out)


@app.command()
def status(
    folder: Folder,
    watch: Annotated[bool, typer.Option("--watch", help="Refreshes every few seconds until Ctrl-C.")] = False,
    as_json: AsJson = False,
) -> None:
    """Shows a sweep's progress, failures and the front so far.

    Example: slimsweep status runs/quickstart
    """
    from analysis.results.load import load
    from orchestrator.console import status as shown

    if as_json and watch:
        raise InputError(
            "status: --json prints once, so it goes without --watch; for a stream of JSON: slimsweep run --events FILE"
        )
    if as_json:
        _print_json(shown.summary(load(root(folder))))
        return
    if not watch:
        shown.show(load(root(folder)), out)
        return
    with suppress(KeyboardInterrupt):
        while True:
            sweep = load(root(folder))
            out.clear()
            shown.show(sweep, out)
            time.sleep(5)


@app.command()
def front(
    folder: Folder,
    formats: Annotated[
        str, typer.Option("--format", help="Comma-separated: csv, json, parquet, html, png, svg, tex, md, study.")
    ] = "csv,json,parquet,html,png",
    trials: Annotated[bool, typer.Option("--trials", help="Exports all trials too: csv, json, parquet of --format.")] = False,
    figures: Annotated[bool, typer.Option("--figures", help="Exports every figure too, as PNG, SVG and CSV.")] = False,
    as_json: AsJson = False,
) -> None:
    """Exports the Pareto front: as tables, as a page, as a figure, and as an Optuna study (optuna.db).

    Exit code 2 where no trial is complete: the files are empty then.

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
    else:
        out.print(front_table(sweep))
        for path in written:
            out.print(str(path), soft_wrap=True)
    _check_complete(sweep, ", so the front is empty")


@app.command()
def report(folder: Folder, as_json: AsJson = False) -> None:
    """Writes the sweep's report: one HTML file that needs no network.

    Exit code 2 where no trial is complete: the report has only what failed then.

    Example: slimsweep report runs/quickstart
    """
    from analysis.report.build import write_report
    from analysis.results.load import load

    sweep = load(root(folder))
    path = write_report(sweep)
    if as_json:
        _print_json({"file": str(path)})
    else:
        out.print(str(path), soft_wrap=True)
    _check_complete(sweep, ", so the report has no results")


def _check_complete(sweep: Any, so: str) -> None:
    """InputError where no trial is complete."""
    if not len(sweep.complete):
        raise InputError(f"{sweep.name}: no trial is complete{so}")


@app.command()
def publish(
    folder: Folder,
    key: Annotated[
        str, typer.Argument(help="A record's key, its first characters, or a trial's number (#7).", show_default=False)
    ],
    to: Annotated[
        Path | None, typer.Option(help="Folder to make. Default: published/SWEEP-KEY.", parser=local, metavar="DIR")
    ] = None,
    hub: Annotated[str | None, typer.Option(metavar="ORG/NAME", help="Also uploads the folder to the hub.")] = None,
    public: Annotated[bool, typer.Option("--public", help="Makes a new repository on the hub public.")] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Publishes even if the merged model scores differently from the adapter.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Merges an adapter into its base's unquantised weights, scores the merged model and writes it with a model card.

    Example: slimsweep publish runs/quickstart "#7" --to my-model
    """
    from analysis.results.load import load
    from orchestrator.console import publish_table
    from orchestrator.publish import Destination
    from orchestrator.publish import publish as publish_adapter

    console = err if as_json else out

    def say(line: str) -> None:
        console.print(line, soft_wrap=True)

    published = publish_adapter(load(root(folder)), key, Destination(to, hub, public), say, force)
    if as_json:
        _print_json(published)
        return
    out.print(publish_table.table(published))
    say(published["url"] or published["folder"])


@app.command()
def ablate(
    name: Annotated[str | None, typer.Argument(help="An ablation, or all. Default: lists them.", show_default=False)] = None,
    base: Annotated[
        str | None,
        typer.Option(help="micro, smollm2, taught, a base of configs/ablations/frame.yaml, or ORG/NAME. Default: its own."),
    ] = None,
    scale: Annotated[
        Literal["full", "small"], typer.Option(help="full, or small: the same design with fewer levels and seeds.")
    ] = "full",
    storage: Annotated[str | None, typer.Option(help="Storage root: a folder, s3://..., gs://.... Default: runs.")] = None,
    address: Address = None,
    events: Events = None,
    hub_mirror: Annotated[
        str | None, typer.Option(metavar="DIR", help="Folder laid out as org/name, read before the hub.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Lists the paper's ablations, or runs one (or all) and answers its questions. The same command again resumes it.

    Example: slimsweep ablate q1 --base micro
    """
    from orchestrator.ablations import run as ablating
    from orchestrator.ablations.design import Ablations
    from orchestrator.console import ablation_table

    ablations, place = Ablations(), str(root(storage or "runs"))
    if name is None:
        found = list(ablating.rows(ablations, place, base, scale))
        if as_json:
            _print_json(found)
        else:
            out.print(ablation_table.table(found))
            trials, distinct = ablating.shared(ablations, base, scale)
            out.print(f"{trials} trials, {distinct} of them distinct; shared trials run once. Hours are those of plan.")
        return
    sweeps = ablating.each(ablations, name.lower(), base, scale)
    planned = [one.mirrored(hub_mirror) for several in sweeps for one in several]
    console = err if as_json else out
    with _stoppable(), only_json(as_json):
        lost = ablating.run(planned, place, address, console, events)
    answers, written = ablating.write(ablations, planned, place, base, scale)
    if as_json:
        _print_json(ablating.as_dict(answers))
    else:
        ablating.say(answers, lambda line: out.print(line, soft_wrap=True))
        out.print(str(written[0]), soft_wrap=True)
    if lost:
        raise SweepFailed(f"every trial of {', '.join(lost)} failed; slimsweep status {place}/{lost[0]} says why")


@app.command()
def compare(
    folder: Folder,
    other: Annotated[str, typer.Argument(help="The other sweep's folder.", show_default=False)],
    to: Annotated[
        Path, typer.Option(help="Folder for the page, the figures and the numbers.", parser=local, metavar="DIR")
    ] = Path("compare"),
    as_json: AsJson = False,
) -> None:
    """Compares the fronts of two sweeps and judges which is better.

    Example: slimsweep compare runs/plain runs/replay --to compare
    """
    from analysis.explore import compare as comparing
    from analysis.report import compare_page
    from analysis.results.load import load

    for one in (sweeps := (load(root(folder)), load(root(other)))):
        _check_complete(one, ", so there is nothing to compare")
    found = comparing.compare(*sweeps)
    written = compare_page.write(found, to)
    if as_json:
        _print_json(comparing.as_dict(found))
        return
    for line in (comparing.verdict(found), *found.warnings, *map(str, written)):
        out.print(line, soft_wrap=True)


app.command("import")(import_command)
app.command()(gate)
app.command()(confirm)


def main() -> None:
    sys.exit(command.run(_run))


def _run() -> int:
    try:
        with system_errors_are_input():
            app()
    except SystemExit as ended:
        return int(ended.code or 0)
    except InputError as error:
        err.print(str(error), soft_wrap=True)
        return 2
    except SweepFailed as error:
        err.print(str(error), soft_wrap=True)
        return 1
    return 0


if __name__ == "__main__":
    main()
