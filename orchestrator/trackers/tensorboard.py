"""TensorBoard: `tensorboard --logdir SWEEP/tensorboard`."""

from pathlib import Path
from typing import Any

from orchestrator.sweep.events import Event
from orchestrator.trackers.base import Losses, metrics, package, rate, require_local, run_name, tags
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
        self._losses = Losses()
        self._open: dict[str, Any] = {}  # writers of running trials, by run

    def progress(self, event: Event) -> None:
        self._curves(event)
        self._of(event).flush()

    def trial(self, event: Event) -> None:
        values = metrics(event)
        self._curves(event)
        with self._of(event) as writer:
            for name, text in tags(event).items():
                writer.add_text(name, text)
            if event.settings:
                writer.add_hparams({path: _simple(value) for path, value in event.settings.items()}, values, name=".")
            else:
                for name, value in values.items():
                    writer.add_scalar(name, value)
        del self._open[run_name(event)]
        self._losses.end(event)

    def close(self) -> None:
        for writer in self._open.values():
            writer.close()

    def _of(self, event: Event) -> Any:
        name = run_name(event)
        if name not in self._open:
            # an earlier command's curve would be drawn beside the new one, which has all its steps when the trial ends
            for old in refuse_link(self._folder / name).glob("events.out.tfevents.*"):
                old.unlink()
            # the suffix: add_hparams opens a second writer, and two writers of one second would share a file
            self._open[name] = self._writer(logdir=str(self._folder / name), filename_suffix=".run")
            self._losses.begin(event)
        return self._open[name]

    def _curves(self, event: Event) -> None:
        writer = self._of(event)
        for step, loss in self._losses.new(event):
            writer.add_scalar("training.loss", loss, step)
        if (speed := rate(event)) is not None:
            writer.add_scalar("training.tokens_per_second", speed[1], speed[0])


def _simple(value: Any) -> bool | int | float | str:
    return value if isinstance(value, bool | int | float) else str(value)
