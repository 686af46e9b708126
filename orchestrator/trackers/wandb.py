"""Weights & Biases."""

import os
from pathlib import Path
from typing import Any

from orchestrator.sweep.events import Event
from orchestrator.trackers.base import Losses, metrics, package, rate, require_local, run_name, settings, tags
from trials.errors import InputError
from trials.ledger.storage import refuse_link


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

    def close(self) -> None:
        for run in self._open.values():
            run.finish(exit_code=1)

    def _run(self, event: Event) -> Any:
        """The trial's run, which begins here where it is new."""
        name = run_name(event)
        if name not in self._open:
            self._open[name] = self._wandb.init(
                project=os.environ.get("WANDB_PROJECT", "slimsweep"),
                group=self._sweep,
                name=name,
                config={**settings(event), **tags(event)},
                dir=str(self._folder),
                reinit="create_new",
                settings=self._wandb.Settings(console="off", silent=True),
            )
        return self._open[name]

    def _curves(self, event: Event, run: Any) -> None:
        values: dict[int, dict[str, float]] = {step: {"training.loss": loss} for step, loss in self._losses.new(event)}
        if (speed := rate(event)) is not None:
            values.setdefault(speed[0], {})["training.tokens_per_second"] = speed[1]
        for step in sorted(values):
            if step >= run.step:  # W&B takes no step below one that it has
                run.log(values[step], step=step)
