"""A running sweep: a live table on a terminal or in a notebook; elsewhere a line when a trial starts and when it ends."""

import math
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.table import Table

from analysis.formatting import labels
from analysis.formatting.numbers import duration
from analysis.stats.estimate import scores
from orchestrator.console.live_table import live_table
from orchestrator.console.time_left import UNKNOWN, Running, Timings
from orchestrator.sweep.controller import SweepController
from orchestrator.sweep.events import Event
from orchestrator.sweep.queue import Job
from trials.ledger.outcomes import ALL, SEARCH
from trials.ledger.trial_progress import TrialProgress
from trials.progress_line import describe

_SHOWN = 8  # finished trials in the live table
_HEARTBEAT = 60.0  # seconds without a line, after which one says what the running trials do
_LISTED = 4  # running trials in that line


def name(number: int | None, replicate: int = 0, replicates: int = 1) -> str:
    if number is None:
        return "baseline"
    return f"trial {number}" + (f", run {replicate + 1} of {replicates}" if replicates > 1 else "")


def settings(values: dict[str, Any]) -> str:
    """'rank 8, learning_rate 0.002': the searched settings, each by the last word of its path."""
    return ", ".join(f"{path.rpartition('.')[2]} {labels.setting(value)}" for path, value in values.items())


def to_run(sweep: SweepController) -> str:
    """'16 to run (5 trials of 3 seeds, 1 baseline), ': runs, then trials as progress counts them."""
    if sweep.state.unfinished is None:
        return ""
    baselines, replicates = sweep.state.queue.baselines, sweep.config.search.replicates
    runs = sweep.state.unfinished - baselines
    seeds = f" of {replicates} seeds" if replicates > 1 else ""
    trials = math.ceil(runs / replicates)  # a trial with some seeds done counts whole
    parts = [f"{trials} trial{'s' * (trials != 1)}{seeds}"]
    parts += [f"{baselines} baseline{'s' * (baselines > 1)}"] if baselines else []
    return f"{sweep.state.unfinished} to run ({', '.join(parts)}), "


class Progress:
    """An observer of the sweep's events."""

    def __init__(self, console: Console):
        self.console = console
        self.sweep: SweepController | None = None
        self.timings = Timings()
        self._began = time.monotonic()
        self._started: dict[str, float] = {}
        self._now: dict[str, TrialProgress] = {}  # of the running trials, by key
        self._ended: deque[Event] = deque(maxlen=_SHOWN)
        self._runs: Counter[int | None] = Counter()  # finished replicates by trial
        self._live = False
        self._said = -math.inf  # when the last line was printed

    @contextmanager
    def watching(self, sweep: SweepController) -> Iterator[None]:
        """Shows the sweep while it runs."""
        self.sweep, self._began = sweep, time.monotonic()
        with live_table(self._table, self.console) as self._live:
            yield
        self._live = False

    @property
    def elapsed(self) -> float:
        """Seconds since watching began."""
        return time.monotonic() - self._began

    def say(self, text: str) -> None:
        """A line beside the table."""
        self._said = time.monotonic()
        self.console.print(text, soft_wrap=True)

    def __call__(self, event: Event) -> None:
        if event.event == "trial_started" and event.key:
            self._started[event.key] = time.monotonic()
            self._say_if_no_table(lambda: self._start(event))
        if event.event == "trial_progress" and event.key and event.progress:
            self._now[event.key] = event.progress
            self.timings.watch(event.progress)
            if time.monotonic() - self._said >= _HEARTBEAT:
                self._say_if_no_table(self._heartbeat)
        if event.event not in ("trial_finished", "trial_failed", "trial_given_up", "trial_paused"):
            return
        self._ended.append(event)
        self._now.pop(event.key or "", None)
        if event.event != "trial_paused":
            self._runs[event.number] += 1
        if event.event == "trial_finished" and event.seconds:  # a failed one may have ended early
            self.timings.add(event.seconds, baseline=event.number is None)
        self._say_if_no_table(lambda: self._line(event))

    def _say_if_no_table(self, line: Callable[[], str]) -> None:
        if not self._live and self.sweep is not None:
            self.say(line())

    def _start(self, event: Event) -> str:
        mean = self.timings.mean(baseline=event.number is None)
        takes = f"about {duration(max(round(mean), 1))}" if mean is not None else ""
        parts = [f"{self._name(event)} starts", takes, settings(event.settings)]
        return "  ".join(part for part in parts if part)

    def _heartbeat(self) -> str:
        """What the running trials do: an hour may pass between two that end."""
        assert self.sweep is not None
        running = dict(self.sweep.running)
        shown = [f"{self._name(job)}: {describe(self._now[key], duration)}" for key, job in running.items() if key in self._now]
        more = [f"{len(shown) - _LISTED} more"] if len(shown) > _LISTED else []
        return "; ".join([*shown[:_LISTED], *more, *([] if (left := self.left()) == UNKNOWN else [left])])

    def _line(self, event: Event) -> str:
        assert self.sweep is not None
        # a trial is counted by its last replicate, or by the first that fails; most are counted right after their event
        whole = (
            event.event in ("trial_failed", "trial_given_up") or self._runs[event.number] == self.sweep.config.search.replicates
        )
        count = sum(self.sweep.counts.values()) + (whole and self.sweep.pending(event.number))
        of = f"/{self.sweep.state.expected}" if self.sweep.state.expected else ""
        who = self._name(event)
        left = self.left()
        left = "" if left == UNKNOWN or not self.sweep.state.unfinished else left
        parts = [f"[{count}{of}]", who, self._time(event), self.outcome(event), settings(event.settings), left]
        return "  ".join(part for part in parts if part)

    def _name(self, one: Event | Job) -> str:
        assert self.sweep is not None
        return name(one.number, one.replicate, self.sweep.config.search.replicates)

    def _time(self, event: Event) -> str:
        if event.event in ("trial_given_up", "trial_paused"):
            return ""
        return duration(sum(event.seconds.values())) if event.key in self._started else "known already"

    def outcome(self, event: Event) -> str:
        """The objectives of a finished or paused trial, the scores of a baseline, or why it failed."""
        assert self.sweep is not None
        if event.failure is not None:
            return f"FAILED {event.failure['kind']}: {' '.join(event.failure['message'].split())[:120]}"
        if event.event == "trial_given_up":
            return f"given up: {event.reason}"
        if event.event == "trial_paused":
            return f"pauses {event.reason}: {self._objectives(event)}"
        labels.learn_scales([event.record] if event.record is not None else [])
        if event.number is None:
            split = SEARCH if self.sweep.config.search.documents == "half" else ALL
            found = scores(event.record, split) if event.record is not None else {}
            return "  ".join(f"{role} {_number(f'{role}.value', named['score'].value)}" for role, named in found.items())
        return self._objectives(event)

    def _objectives(self, event: Event) -> str:
        assert self.sweep is not None
        shown = []
        for objective in self.sweep.config.search.objectives:
            value = event.metrics.get(objective.metric)
            shown.append(_level(objective.metric, value) if value is not None else f"{objective.metric} undefined")
        return "  ".join(shown)

    def left(self) -> str:
        """Time for the rest, from the finished trials: "about 2 min 10 s left". Of a sweep that stops, for the running ones."""
        assert self.sweep is not None
        unfinished, now, jobs = self.sweep.state.unfinished, time.monotonic(), dict(self.sweep.running)
        running = [
            Running(job.number is None, now - self._started.get(key, now), self._now.get(key)) for key, job in jobs.items()
        ]
        if self.sweep.stopping:
            return self.timings.of_sweep(running, {}, self.sweep.state.slots)
        if unfinished is None:
            return UNKNOWN
        baselines = max(self.sweep.state.queue.baselines - sum(one.baseline for one in running), 0)
        waiting = {True: baselines, False: max(unfinished - len(running) - baselines, 0)}
        return self.timings.of_sweep(running, waiting, self.sweep.state.slots)

    def _table(self) -> RenderableType:
        assert self.sweep is not None
        counts, running = self.sweep.counts, dict(self.sweep.running)
        of = f" of {self.sweep.state.expected}" if self.sweep.state.expected else ""
        given_up = f", {counts['given up']} given up" if counts["given up"] else ""
        paused = len(self.sweep.state.queue.paused)
        given_up += f", {paused} paused" if paused else ""
        head = (
            f"{self.sweep.config.name}: {counts['done']}{of} trials done, {len(running)} running, "
            f"{counts['failed']} failed{given_up}; {duration(self.elapsed)} so far, {self.left()}"
        )
        table = Table(expand=False, box=None, pad_edge=False)
        for column in ("", "", "result", "settings"):
            table.add_column(column, overflow="fold")
        for event in list(self._ended):
            row = (self._time(event), self.outcome(event), settings(event.settings))
            table.add_row(self._name(event), *row)
        for key, job in running.items():
            table.add_row(*self._running(key, job), style="dim")
        return Group(head, best(self.sweep), table)

    def _running(self, key: str, job: Job) -> tuple[str, str, str, str]:
        since = time.monotonic() - self._started.get(key, time.monotonic())
        now = self._now.get(key)
        return self._name(job), duration(since), describe(now, duration) if now else "running", settings(job.settings)


def _level(metric: str, value: float) -> str:
    """'commonsense gain +2.0 points', in the unit of the reports."""
    return f"{labels.metric_name(metric)} {_number(metric, value)}"


def _number(metric: str, value: float) -> str:
    return f"{labels.percent(metric, value)}{labels.unit(metric)}"


def best(sweep: SweepController) -> str:
    """The best first objective among the trials that keep every constraint."""
    rows = sweep.front.rows()
    if not rows:
        done = sweep.counts["done"]
        kept = "keeps the constraints and " if sweep.config.search.constraints else ""
        none = f"none of {done} {kept}beats the untrained base"
        return f"best so far: {none if done else 'nothing finished yet'}"
    values = ", ".join(_level(metric, value) for metric, value in rows[0]["metrics"].items())
    return f"best so far: trial {rows[0]['number']} with {values}; {len(rows)} on the front"
