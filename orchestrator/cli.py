"""The command line: `slimsweep COMMAND --help` shows an example of each.

Exit codes: 0 done, 1 a sweep or trial failed, 2 bad input. With --json, standard output holds JSON alone.
"""

import fcntl
import json
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from orchestrator.errors import SweepFailed
from trials.errors import InputError

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode="rich", pretty_exceptions_enable=False)
out = Console(highlight=False, width=None if sys.stdout.isatty() else 160)
err = Console(stderr=True, highlight=False)

Config = Annotated[Path, typer.Argument(help="The sweep's YAML file.", show_default=False)]
Folder = Annotated[Path, typer.Argument(help="A sweep's folder, such as runs/quickstart.", show_default=False)]
Override = Annotated[list[str] | None, typer.Option("--set", metavar="PATH=VALUE", help="Changes one value of the config.")]
Storage = Annotated[Path | None, typer.Option(help="Storage root; the config's own when left out.")]
AsJson = Annotated[bool, typer.Option("--json", help="Prints JSON.")]


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
    address: Annotated[str | None, typer.Option(help="A Ray cluster: auto or HOST:PORT. This machine when left out.")] = None,
    as_json: AsJson = False,
) -> None:
    """Runs a sweep, or goes on with one that was cut off: the same command again is the resume.

    Example: slimsweep run configs/quickstart.yaml --set search.trials=20
    """
    from orchestrator.config import load

    sweep_config = load(config, override or [])
    root = _storage(storage, sweep_config.storage)
    left = _run(sweep_config, root, address, err if as_json else out)
    _finish(root / sweep_config.name, as_json)
    if left:
        raise SweepFailed(f"{sweep_config.name}: stopped with {left} still to run; the same command goes on with them")


def _storage(given: Path | None, configured: str) -> Path:
    text = str(given) if given is not None else configured
    if "://" in text and not text.startswith("file://"):
        raise InputError(f"storage: {text}: this version writes to folders; a cluster needs one that all its nodes share")
    return Path(text.removeprefix("file://"))


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Holds the sweep's folder; a second driver would take the trials of the first for abandoned ones."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".driver").open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"{folder}: this sweep is being run already; wait for that command or stop it") from None
        yield


def _run(config: Any, root: Path, address: str | None, console: Console) -> int:
    """Runs what is left of the sweep; returns how much of it was not run because somebody stopped it."""
    with ExitStack() as held:
        return _run_alone(config, root, address, console, held)


def _run_alone(config: Any, root: Path, address: str | None, console: Console, held: ExitStack) -> int:
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    from orchestrator.plan import check_inputs
    from orchestrator.progress import Progress, duration
    from orchestrator.sweep import Sweep

    if address is not None and address.startswith("ray://"):
        raise InputError(f"--address {address}: a Ray client cannot hold the study; run this on a node, with --address auto")
    sweep = None
    if (root / config.name / "study.db").exists():
        held.enter_context(_alone(root / config.name))
        sweep = Sweep(config, root)
    if sweep is not None and sweep.unfinished == 0:
        console.print(f"{config.name}: all {config.budget} trials are done")
        return 0
    console.print("checking the model, the data and the tasks ...")
    check_inputs(config)
    from orchestrator import launch

    with launch.cluster(address, config.resources.cpus_per_trial):
        slots = launch.slots(config.resources)
        if sweep is None:
            held.enter_context(_alone(root / config.name))
            sweep = Sweep(config, root)
        device = f"{slots.gpus:g} GPU" if slots.gpus else f"{slots.cpus} CPU core{'s' * (slots.cpus > 1)}, no GPU"
        console.print(f"{config.name}: {sweep.unfinished} to run, {slots.concurrent} at a time, {device} each")
        progress = Progress(console)
        with progress.watching(sweep, slots.concurrent):
            launch.run(sweep, root, config.hub_mirror, slots)
        console.print(f"{config.name}: {duration(progress.elapsed)}")
    return sweep.unfinished


def _finish(folder: Path, as_json: bool) -> None:
    """Exports the front and the report, and prints the front."""
    from analysis.export import export, front_rows
    from analysis.load import load
    from analysis.report import headline, write_report

    sweep = load(folder)
    written = [*export(sweep), write_report(sweep)]
    if as_json:
        _print_json({"front": front_rows(sweep), "files": [str(path) for path in written]})
        return
    out.print(headline(sweep))
    out.print(_front_table(sweep))
    for path in written:
        if path.suffix == ".png" or path.name == "report.html":
            out.print(str(path), soft_wrap=True)


def _front_table(sweep: Any) -> Table:
    title = f"front of {sweep.name}: {len(sweep.front)} of {len(sweep.trials)} trials"
    table = Table(title=title, title_justify="left", box=box.SIMPLE, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("trial", justify="right")
    for metric in sweep.judged:
        table.add_column(metric.replace(".", "\n"), justify="right", no_wrap=True)
    for path in sweep.space:
        table.add_column(path.rpartition(".")[2].replace("_", "\n"), justify="right", no_wrap=True)
    table.add_column("key", no_wrap=True)
    for row in sweep.front.to_dict("records"):
        metrics = [f"{row[name]:+.3f} ± {row[name + '_se']:.3f}" for name in sweep.judged]
        params = [f"{row[path]:.3g}" if isinstance(row[path], float) else str(row[path]) for path in sweep.space]
        table.add_row(str(row["number"]), *metrics, *params, row["key"])
    return table


@app.command()
def plan(config: Config, override: Override = None, storage: Storage = None, as_json: AsJson = False) -> None:
    """Shows what would run, before it does.

    Example: slimsweep plan configs/quickstart.yaml
    """
    from orchestrator.config import load
    from orchestrator.plan import plan as plan_sweep

    sweep_config = load(config, override or [])
    found = plan_sweep(sweep_config, _storage(storage, sweep_config.storage))
    if as_json:
        _print_json(found.as_dict())
        return
    table = Table(title=found.name, title_justify="left", show_header=False)
    table.add_row("trials", f"{found.trials}, {found.trials_done} of them done")
    table.add_row("baselines", f"{found.baselines}, {found.baselines_done} of them done")
    table.add_row("sampler", sweep_config.search.sampler + (f", {found.points} points" if found.points is not None else ""))
    for path, parameter in sweep_config.space.items():
        table.add_row(
            path, ", ".join(f"{k} {v}" for k, v in parameter.model_dump(exclude_defaults=True).items() if k != "type")
        )
    if found.seconds_per_trial is None or found.hours is None:
        table.add_row("time", "not known: the ledger has no finished trial of this base")
    else:
        table.add_row("time", f"{found.seconds_per_trial:.0f} s a trial (measured), {found.hours:.2f} worker-hours left")
    out.print(table)


@app.command()
def status(folder: Folder, as_json: AsJson = False) -> None:
    """Shows a sweep's progress, failures and the front so far.

    Example: slimsweep status runs/quickstart
    """
    from analysis.export import front_rows
    from analysis.load import load

    sweep = load(folder)
    counts = sweep.trials["state"].value_counts()
    states = {state: int(counts.get(state, 0)) for state in ("complete", "failed", "pending")}
    if as_json:
        failures = sweep.failures.drop(columns="traceback", errors="ignore").to_dict("records")
        _print_json({"budget": sweep.budget, **states, "failures": failures, "front": front_rows(sweep)})
        return
    out.print(
        f"{sweep.name}: {states['complete']} of {sweep.budget} trials complete, "
        f"{states['failed']} failed, {states['pending']} open"
    )
    for failure in sweep.failures.to_dict("records"):
        out.print(
            f"  {failure['what']} ({failure['key']}): {failure['kind']}: {failure['message']}", markup=False, soft_wrap=True
        )
    out.print(_front_table(sweep))


@app.command()
def front(
    folder: Folder,
    formats: Annotated[
        str, typer.Option("--format", help="Of csv, json, parquet, html, png, with commas.")
    ] = "csv,json,parquet,html,png",
    as_json: AsJson = False,
) -> None:
    """Exports the Pareto front.

    Example: slimsweep front runs/quickstart --format csv,png
    """
    from analysis.export import export, front_rows
    from analysis.load import load

    sweep = load(folder)
    written = export(sweep, [name.strip() for name in formats.split(",")])
    if as_json:
        _print_json(front_rows(sweep))
        return
    out.print(_front_table(sweep))
    for path in written:
        out.print(str(path), soft_wrap=True)


@app.command()
def report(folder: Folder, as_json: AsJson = False) -> None:
    """Writes the sweep's report: one HTML file that needs no network.

    Example: slimsweep report runs/quickstart
    """
    from analysis.load import load
    from analysis.report import write_report

    path = write_report(load(folder))
    if as_json:
        _print_json({"file": str(path)})
    else:
        out.print(str(path), soft_wrap=True)


def main() -> None:
    try:
        app()
    except InputError as error:
        err.print(str(error), markup=False, soft_wrap=True)
        sys.exit(2)
    except OSError as error:
        err.print(f"{error.filename or 'storage'}: {error.strerror or error}", markup=False, soft_wrap=True)
        sys.exit(2)
    except SweepFailed as error:
        err.print(str(error), markup=False, soft_wrap=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
