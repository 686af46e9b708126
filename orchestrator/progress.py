"""What a running sweep shows: a live table on a terminal, one line per finished trial elsewhere."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from optuna.trial import TrialState
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from orchestrator.sweep import Job, Sweep
from trials.record import TrialRecord

_SHOWN = 8  # finished trials in the live table


def name(job: Job) -> str:
    return "baseline" if job.number is None else f"trial {job.number}"


def settings(params: dict[str, Any]) -> str:
    """'rank 8, learning_rate 0.002': the searched settings, each by the last word of its path."""
    return ", ".join(
        f"{path.rpartition('.')[2]} {value:.3g}" if isinstance(value, float) else f"{path.rpartition('.')[2]} {value}"
        for path, value in params.items()
    )


def duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02} min"
    return f"{minutes} min {rest:02} s" if minutes else f"{rest} s"


class Progress:
    def __init__(self, console: Console):
        self.console = console
        self.sweep: Sweep | None = None
        self.concurrent = 1
        self._began = time.monotonic()
        self._started: dict[str, float] = {}
        self._reported = 0
        self._live: Live | None = None

    @contextmanager
    def watching(self, sweep: Sweep, concurrent: int) -> Iterator[None]:
        """Shows the sweep while it runs."""
        self.sweep, self.concurrent, self._began = sweep, concurrent, time.monotonic()
        sweep.on_change = self.changed
        if not self.console.is_terminal:
            yield
            return
        with Live(get_renderable=self._table, console=self.console, refresh_per_second=2) as self._live:
            yield
        self._live = None

    @property
    def elapsed(self) -> float:
        """Seconds since watching began."""
        return time.monotonic() - self._began

    def changed(self) -> None:
        """Called by the sweep when a trial has started or finished."""
        assert self.sweep is not None
        for key in self.sweep.running:
            self._started.setdefault(key, time.monotonic())
        for job, record in self.sweep.finished[self._reported :]:
            self._reported += 1
            if self._live is None:
                self.console.print(self._line(job, record), soft_wrap=True, highlight=False, markup=False)

    def _line(self, job: Job, record: TrialRecord) -> str:
        outcome = self.outcome(job, record)
        parts = [self._count(), name(job), duration(sum(record.seconds.values())), outcome, settings(job.params)]
        return "  ".join(part for part in parts if part)

    def outcome(self, job: Job, record: TrialRecord) -> str:
        """The objectives of a finished trial, the scores of a baseline, or why it failed."""
        if record.failure is not None:
            return f"FAILED {record.failure.kind}: {' '.join(record.failure.message.split())[:120]}"
        if job.number is None:
            return "  ".join(f"{role} {score.value:.3f}" for role, score in record.scores.items())
        assert self.sweep is not None
        trial = self.sweep.study.get_trials(deepcopy=False)[job.number]
        if trial.state != TrialState.COMPLETE:
            return "waits for its baseline" if trial.state == TrialState.RUNNING else "an objective is undefined"
        return "  ".join(
            f"{objective.metric} {value:+.3f}"
            for objective, value in zip(self.sweep.config.search.objectives, trial.values, strict=True)
        )

    def _count(self) -> str:
        assert self.sweep is not None
        counts = self.sweep.counts()
        return f"[{counts['done'] + counts['failed']}/{counts['budget']}]"

    def left(self) -> str:
        """The time that the rest will take, from what the finished trials of this run took."""
        assert self.sweep is not None
        took = [sum(record.seconds.values()) for _, record in self.sweep.finished if record.seconds]
        if not took:
            return "not known yet"
        elapsed = sum(min(time.monotonic() - self._started.get(key, time.monotonic()), max(took)) for key in self.sweep.running)
        rest = self.sweep.unfinished * sum(took) / len(took) - elapsed
        return f"about {duration(max(rest, 0) / self.concurrent)}"

    def _table(self) -> RenderableType:
        assert self.sweep is not None
        counts = self.sweep.counts()
        head = Text(
            f"{self.sweep.config.name}: {counts['done']} of {counts['budget']} trials done, {counts['running']} running, "
            f"{counts['failed']} failed; {duration(time.monotonic() - self._began)} so far, {self.left()} left"
        )
        table = Table(expand=False, box=None, pad_edge=False)
        for column in ("", "", "result", "settings"):
            table.add_column(column, overflow="fold")
        for job, record in self.sweep.finished[-_SHOWN:]:
            table.add_row(
                name(job), duration(sum(record.seconds.values())), Text(self.outcome(job, record)), Text(settings(job.params))
            )
        for key, job in list(self.sweep.running.items()):
            since = time.monotonic() - self._started.get(key, time.monotonic())
            table.add_row(name(job), duration(since), "running", settings(job.params), style="dim")
        return Group(head, Text(best(self.sweep)), table)


def best(sweep: Sweep) -> str:
    """The best first objective among the trials that keep every constraint."""
    trials = [trial for trial in sweep.study.get_trials(deepcopy=False) if trial.state == TrialState.COMPLETE]
    feasible = [trial for trial in trials if all(value <= 0 for value in trial.constraints.values())]
    if not feasible:
        return f"best so far: none of {len(trials)} keeps the constraints" if trials else "best so far: nothing finished yet"
    first = sweep.config.search.objectives[0]
    top = (max if first.direction == "maximize" else min)(feasible, key=lambda trial: trial.values[0])
    named = zip(sweep.config.search.objectives, top.values, strict=True)
    values = ", ".join(f"{objective.metric} {value:+.3f}" for objective, value in named)
    return f"best so far: trial {top.number} with {values}"
