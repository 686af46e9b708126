"""Weights & Biases."""

import os
from pathlib import Path

from orchestrator.sweep.events import Event
from orchestrator.trackers.base import losses, metrics, package, require_local, run_name, settings, tags
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

    def trial(self, event: Event) -> None:
        run = self._wandb.init(
            project=os.environ.get("WANDB_PROJECT", "slimsweep"),
            group=self._sweep,
            name=run_name(event),
            config={**settings(event), **tags(event)},
            dir=str(self._folder),
            reinit="create_new",
            settings=self._wandb.Settings(console="off", silent=True),
        )
        for step, loss in losses(event):
            run.log({"training.loss": loss}, step=step)
        run.summary.update(metrics(event))
        run.finish(exit_code=1 if event.event == "trial_failed" else 0)
