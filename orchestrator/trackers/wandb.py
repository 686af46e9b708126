"""Weights & Biases."""

import hashlib
import os
import shutil
from pathlib import Path
from typing import Any

from orchestrator.sweep.events import Event
from orchestrator.trackers.base import Losses, metrics, package, rate, require_local, run_name, settings, tags
from trials.errors import InputError
from trials.ledger.storage import refuse_link

_RECORDED = "recorded_steps"  # in the summary: the last step whose loss the run has, for a later command that goes on with it


class WandB:
    """Creates a run for each trial in the project WANDB_PROJECT (default: slimsweep), grouped by the sweep's name.

    WANDB_MODE=offline keeps the runs in SWEEP/wandb for `wandb sync`.
    """

    name = "wandb"

    @classmethod
    def check(cls, folder: Path) -> None:
        wandb = package("wandb", cls.name)
        require_local(folder, cls.name, "storage has to be a folder")
        if os.environ.get("WANDB_MODE", "online") == "online" and not wandb.login(prompt=False, verify=False):
            raise InputError("trackers: wandb has no API key: `wandb login`, or WANDB_MODE=offline")

    def __init__(self, sweep: str, folder: Path):
        self._wandb = package("wandb", self.name)
        self._sweep = sweep
        self._folder = folder
        self._folder.mkdir(parents=True, exist_ok=True)
        refuse_link(self._folder / "wandb")
        self._losses = Losses()
        self._open: dict[str, Any] = {}  # runs of running trials, by name

    def progress(self, event: Event) -> None:
        self._curves(event, self._run(event))

    def trial(self, event: Event) -> None:
        run = self._run(event)
        run.config.update({**settings(event), **tags(event)}, allow_val_change=True)
        self._curves(event, run)
        run.summary.update(metrics(event))
        run.finish(exit_code=1 if event.event == "trial_failed" else 0)
        del self._open[run_name(event)]
        self._losses.end(event)

    def close(self) -> None:
        for run in self._open.values():
            run.finish(exit_code=1)

    def _run(self, event: Event) -> Any:
        """The trial's run: one that this command has open, that of an earlier command, or a new one."""
        name = run_name(event)
        if name not in self._open:
            own = self._id(event)
            for old in (self._folder / "wandb").glob(f"offline-run-*-{own}"):
                shutil.rmtree(old)  # `wandb sync` would add it to the new one, which has all steps when the trial ends
            run = self._wandb.init(
                project=os.environ.get("WANDB_PROJECT", "slimsweep"),
                group=self._sweep,
                name=name,
                id=own,
                resume="allow",
                config={**settings(event), **tags(event)},
                dir=str(self._folder),
                reinit="create_new",
                settings=self._wandb.Settings(console="off", silent=True),
            )
            # by the optimiser's step: W&B's own only grows, and the end of a trial brings the steps that no event had
            run.define_metric("training.*", step_metric="training.step")
            self._open[name] = run
            self._losses.begin(event, range(1, int(run.summary.get(_RECORDED) or 0) + 1))
        return self._open[name]

    def _id(self, event: Event) -> str:
        """The same for every command that runs this sweep, and another one for each sweep."""
        named = f"{self._folder.resolve()} {run_name(event)} {event.key}"
        return hashlib.sha256(named.encode()).hexdigest()[:16]

    def _curves(self, event: Event, run: Any) -> None:
        values: dict[int, dict[str, float]] = {step: {"loss": loss} for step, loss in self._losses.new(event)}
        if (speed := rate(event)) is not None:
            values.setdefault(speed[0], {})["tokens_per_second"] = speed[1]
        for step in sorted(values):
            run.log({"training": {"step": step, **values[step]}})
        if values:
            run.summary.update({_RECORDED: max(*values, int(run.summary.get(_RECORDED) or 0))})
