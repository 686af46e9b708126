"""What the command line and Python programs share: a config, its plan, a run, and results. `import slimsweep` offers these.

Every error is an InputError (bad input) or a SweepFailed (it cannot go on, or was stopped) with the text that a command prints.
A second Ctrl-C raises KeyboardInterrupt, and `run` raises what the user's own function has raised.
"""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from upath import UPath

from orchestrator.config.load import load
from orchestrator.config.model import SweepConfig
from orchestrator.config.shipped import find
from orchestrator.console.terminal import Terminal
from orchestrator.errors import SweepFailed
from orchestrator.sweep.callback import OnTrial
from orchestrator.sweep.events import Event, Observer, event_log
from trials.errors import InputError, system_errors_are_input
from trials.ledger.storage import root
from trials.printable import one_line
from trials.yaml_file import YamlFile, dump

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from analysis.results.sweep import Sweep
    from orchestrator.planning.plan import Gpus, Plan


# ---------------------------------------------------------------------- the config


@system_errors_are_input()
def config(
    source: str | Path | Mapping[str, Any], overrides: Mapping[str, Any] | Sequence[str] = (), gpu: str | None = None
) -> SweepConfig:
    """Loads and checks a config: a YAML file, or its content as a dictionary. InputError names every problem.

    `overrides` are values by dotted path, {"search.trials": 20}, or texts as of --set. `gpu` is the kind that trials will have.
    """
    if not isinstance(source, str | Path | Mapping):
        raise InputError(f"config: a file's path or a dictionary, not {_shown(source)}")
    if isinstance(overrides, str) or not all(isinstance(one, str) for one in overrides):
        raise InputError(f"config: overrides are values by dotted path or texts PATH=VALUE, not {_shown(overrides)}")
    changes = [f"{path}={_yaml(value)}" for path, value in overrides.items()] if isinstance(overrides, Mapping) else overrides
    if isinstance(source, Mapping):
        file = YamlFile(Path("config"), text=dump(_plain(source)))
        file.name((), "config")  # a dictionary has no lines
    else:
        file = YamlFile(find(source) if isinstance(source, str) else source)
    return load(file, changes, gpu, option="overrides: " if isinstance(overrides, Mapping) else "--set ")


def _shown(value: object) -> str:
    return f"{type(value).__name__} {one_line(repr(value))[:60]}"


def _check_config(config: object) -> None:
    if not isinstance(config, SweepConfig):
        raise InputError(f"config: slimsweep.config(...) makes one, but got {_shown(config)}")


def _root(place: str | Path) -> Path:
    if not isinstance(place, str | Path | UPath):
        raise InputError(f"storage: a folder's path or URL, not {_shown(place)}")
    return root(place)


def _yaml(value: Any) -> str:
    return json.dumps(_plain(value), ensure_ascii=False)  # JSON is YAML on one line


def _plain(value: Any) -> Any:
    """The value as YAML has it: numbers of numpy and paths are converted."""

    def converted(one: Any) -> Any:
        if isinstance(one, Path):
            return str(one)
        if hasattr(one, "item"):
            return one.item()
        raise TypeError(f"{type(one).__name__} {one!r:.60} is no value of a config")

    try:
        return json.loads(json.dumps(value, default=converted))
    except (TypeError, ValueError) as error:  # also one that contains itself
        raise InputError(f"config: {error}") from None


# ---------------------------------------------------------------------- its plan


@dataclass(frozen=True)
class SweepPlan:
    """A plan that shows itself as `slimsweep plan` does."""

    config: SweepConfig
    figures: "Plan"
    """Trials, seconds, money, memory and disk."""

    def as_dict(self) -> dict[str, Any]:
        """The figures as JSON values."""
        return self.figures.as_dict()

    def show(self, terminal: Terminal) -> None:
        from orchestrator.console import plan_table

        terminal.print(plan_table.table(self.figures, self.config))
        for line in plan_table.lines(self.figures):
            terminal.print(line, soft_wrap=True)

    def _repr_html_(self) -> str:
        from orchestrator.console import plan_table
        from orchestrator.console.live_table import html

        return html(plan_table.table(self.figures, self.config), *plan_table.lines(self.figures))


@system_errors_are_input()
def plan(config: SweepConfig, storage: str | Path | None = None, gpus: "Gpus | None" = None) -> SweepPlan:
    """What a sweep would cost, before it runs. `storage` is by default the config's, `gpus` are those of this machine."""
    _check_config(config)
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    from orchestrator.planning.plan import Gpus
    from orchestrator.planning.plan import plan as plan_sweep
    from orchestrator.sweep.earlier_run import pinned

    place = _root(storage or config.storage)
    config = pinned(config, place)
    return SweepPlan(config, plan_sweep(config, place, gpus or Gpus()))


# ---------------------------------------------------------------------- a run


@dataclass(frozen=True)
class Ran:
    """A sweep whose driver has ended."""

    name: str
    place: Path
    """The storage root."""
    left: int | None
    """Runs that are left because the user stopped it."""
    outcome: dict[str, Any]
    """What orchestrator.finish returns."""

    def check(self) -> None:
        """Raises SweepFailed for a sweep that was stopped or has no finished trial."""
        if self.left:
            raise SweepFailed(f"{self.name}: stopped with {self.left} still to run; the same command resumes it")
        if self.outcome["failed"] and not self.outcome["complete"]:
            raise SweepFailed(f"{self.name}: every trial failed; slimsweep status {self.place}/{self.name} says why")


@dataclass(frozen=True)
class Driving:
    """Where a sweep runs, and what is shown of it."""

    address: str | None = None
    """Ray cluster: auto, HOST:PORT or ray://HOST:PORT. Default: this machine."""
    console: Terminal = field(default_factory=Terminal)
    show: bool = True
    """Whether the front is printed in the end."""
    events: str | None = None
    """File that gets a JSON line for every event."""
    on_trial: OnTrial | None = None


@system_errors_are_input()
def drive(config: SweepConfig, storage: str | Path | None, how: Driving) -> Ran:
    """Runs the rest of a sweep, and exports its front and its report."""
    _check_config(config)
    from orchestrator.finish import finish
    from orchestrator.run import drive as drive_here

    place = _root(storage or config.storage)
    if how.address is not None and how.address.startswith("ray://"):
        from orchestrator.submit import ClusterSweep, run_through_client

        if how.on_trial is not None:
            raise InputError("on_trial: the driver runs on the cluster at ray://, where it cannot call; leave it out")
        remote = ClusterSweep(config, str(place), how.events)
        left, outcome = run_through_client(remote, how.address, how.console, show=how.show)
    else:
        observers: list[Observer] = [*event_log(how.events)]
        if how.on_trial is not None:
            observers.append(how.on_trial)
        left = drive_here(config, place, how.address, how.console, observers)
        outcome = finish(place, config.name, how.console if how.show else None)
    return Ran(config.name, place, left, outcome)


def run(
    config: SweepConfig,
    storage: str | Path | None = None,
    address: str | None = None,
    on_trial: Callable[[Event], object] | None = None,
    quiet: bool = False,
) -> "Results":
    """Runs a sweep, or the rest of one, and returns its results. Blocks until it has ended.

    `on_trial` is called with the event of each run of a trial that ends: finished, failed or given up; not again for those that
    an earlier call has seen. Where it raises, the sweep stops as after one Ctrl-C, and `run` raises the same. `quiet`:
    nothing is printed. Raises SweepFailed for a sweep that was stopped or has no finished trial, and KeyboardInterrupt after a
    second Ctrl-C, without the events that `on_trial` has not had yet. The same call resumes the sweep.
    """
    if not (on_trial is None or callable(on_trial)):
        raise InputError(f"on_trial: a function of an event, not {_shown(on_trial)}")
    called = OnTrial(on_trial) if on_trial is not None else None
    console = Terminal(quiet=quiet)
    try:
        ran = drive(config, storage, Driving(address, console, show=False, on_trial=called))
    finally:
        if called is not None:
            called.close()
    if called is not None:
        called.check()
    ran.check()
    return results(ran.place / ran.name)


# ---------------------------------------------------------------------- results


class Results:
    """The results of a sweep as data frames and as a figure. Metric values are shares (0..1) under ROLE.KIND."""

    def __init__(self, sweep: "Sweep"):
        self.sweep = sweep
        """Everything that the frames are made from; see analysis.results.sweep.Sweep."""

    @property
    def trials(self) -> "pd.DataFrame":
        """A row for each trial, failed and pending ones included."""
        return self.sweep.trials

    @property
    def front(self) -> "pd.DataFrame":
        """The rows of `trials` on the front, the best in the first objective first."""
        return self.sweep.front

    @property
    def baselines(self) -> "pd.DataFrame":
        return self.sweep.baselines

    @property
    def failures(self) -> "pd.DataFrame":
        return self.sweep.failures

    @property
    def documents(self) -> "pd.DataFrame":
        """A row for each evaluated document of each complete run: key, number (missing for a baseline), replicate, and the
        columns of trials.ledger.record.Ledger.documents."""
        import pandas as pd

        from analysis.results.manifest import Manifest

        numbers = {
            key: (trial.number, replicate)
            for trial in reversed(Manifest.read(self.sweep.folder).trials)
            for replicate, key in enumerate(trial.keys)
        }
        frames = []
        for record in self.sweep.complete_records:
            number, replicate = numbers.get(record.key, (None, 0))
            frame = self.sweep.ledger.documents(record.key)
            frame.insert(0, "key", record.key)
            frame.insert(1, "number", pd.Series([number] * len(frame), dtype="Int64"))
            frame.insert(2, "replicate", replicate)
            frames.append(frame)
        return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=["key", "number", "replicate"])

    @property
    def mix(self) -> "pd.DataFrame":
        """The law of the mix: a row for each metric that decides and each source whose share varied, with the change that the
        share makes and the share that keeps the bound. `analysis.explore.mix_law.law` takes another source or bound."""
        from analysis.explore.mix_law import frame, laws

        return frame(laws(self.sweep))

    @property
    def _labelled(self) -> "Sweep":
        """The sweep, whose roles from now on have its own units: another one that was read since may have the same roles."""
        from analysis.formatting import labels

        labels.learn_scales(self.sweep.records.values())
        return self.sweep

    def plot(self) -> "Figure":
        """The front with all finished trials, as in the report. `.savefig(FILE)` writes it."""
        from analysis.figures.front import front_figure

        return front_figure(self._labelled)

    def report(self) -> Path:
        """Writes the report, one HTML file that needs no network, into the sweep's folder."""
        from analysis.report.build import write_report

        return write_report(self._labelled)

    def __repr__(self) -> str:
        from analysis.report.findings import headline

        return f"<results of {self.sweep.name}: {headline(self._labelled)}>"

    def _repr_html_(self) -> str:
        from analysis.report.findings import headline
        from orchestrator.console.front_table import front_table
        from orchestrator.console.live_table import html

        # the table of an empty front is the headline
        return html(*([headline(self._labelled)] if len(self.sweep.front) else []), front_table(self._labelled))


@system_errors_are_input()
def results(folder: str | Path) -> Results:
    """The results so far of the sweep in this folder: runs/quickstart, s3://bucket/runs/quickstart."""
    from analysis.results.load import load as load_results

    return Results(load_results(_root(folder)))
