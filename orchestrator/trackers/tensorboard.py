"""TensorBoard: `tensorboard --logdir SWEEP/tensorboard`."""

from pathlib import Path
from typing import Any

from orchestrator.sweep.events import Event
from orchestrator.trackers.base import losses, metrics, package, require_local, run_name, tags
from trials.ledger.storage import refuse_link


class TensorBoard:
    """Writes event files to SWEEP/tensorboard, a folder for each run; settings and metrics fill the HParams page."""

    name = "tensorboard"

    @classmethod
    def check(cls, folder: Path) -> None:
        package("tensorboardX", cls.name)
        require_local(folder, cls.name, "mlflow has servers")

    def __init__(self, sweep: str, folder: Path):
        self._writer = package("tensorboardX", self.name).SummaryWriter
        self._folder = refuse_link(folder / "tensorboard")

    def trial(self, event: Event) -> None:
        values = metrics(event)
        # the suffix: add_hparams opens a second writer, and two writers of one second would share a file
        with self._writer(logdir=str(self._folder / run_name(event)), filename_suffix=".run") as writer:
            for step, loss in losses(event):
                writer.add_scalar("training.loss", loss, step)
            for name, text in tags(event).items():
                writer.add_text(name, text)
            if event.settings:
                writer.add_hparams({path: _simple(value) for path, value in event.settings.items()}, values, name=".")
            else:
                for name, value in values.items():
                    writer.add_scalar(name, value)


def _simple(value: Any) -> bool | int | float | str:
    return value if isinstance(value, bool | int | float) else str(value)
