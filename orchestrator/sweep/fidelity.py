"""Multi-fidelity search: which paused trial goes on, which one stops, and when a new one begins.

A trial is looked at on the rungs of a ladder. While the budget lasts, the next job is the one with the largest expected gain of
hypervolume for its cost: a paused trial, brought to its end, or a new point. Then the paused trials that may be on the front go
on, the likeliest first, and the others stop. What is stopped holds at most RISK of the front's expected members.
"""

from typing import Any

from analysis.metrics.names import roles_of
from orchestrator.config.model import SweepConfig
from orchestrator.search.looks import Look
from orchestrator.search.prospects import Prospects
from orchestrator.sweep.intake import Intake
from orchestrator.sweep.outcome_reporter import OutcomeReporter
from orchestrator.sweep.pause import RUNGS, criteria
from orchestrator.sweep.queue import Job
from orchestrator.sweep.state import SweepState
from trials.ledger.record import TrialRecord

CHANCE = 0.05
"""While the search lasts no paused trial with a smaller probability to be on the front goes on."""
RISK = 0.05
"""Share of the front's expected members that may be among the stopped trials."""
_GO_ON = 0.4  # share of new trials that are expected to go on, for the cost of a new one


def rung(look: Look) -> tuple[float, float] | None:
    """The rung after a look; None for the end."""
    return next((one for one in RUNGS if one > (look.rows, look.documents)), None)


class Costs:
    """Seconds of what is left of a trial, from the base's evaluation and from the looks so far."""

    def __init__(self, config: SweepConfig, baseline: TrialRecord):
        decide = roles_of(config.criteria.metrics)
        seconds = {role: baseline.seconds.get(f"evaluate.{role}", 0.0) for role in config.eval}
        self.evaluation = sum(seconds.values())
        self._searched = sum(seconds[role] for role in decide) * (0.5 if config.search.documents == "half" else 1.0)
        self.training = 0.0

    def learn(self, looks: list[Look]) -> None:
        """Estimates the seconds of a training."""
        found = [max(one.seconds - self._searched * one.documents, 0.0) / one.rows for one in looks]
        self.training = sum(found) / len(found)

    def left(self, look: Look) -> float:
        if look.rows < 1:
            return self.training * (1 - look.rows) + self.evaluation
        return self.evaluation - self._searched * look.documents

    @property
    def first(self) -> tuple[float, float]:
        """The first rung of a new trial. A look after a part of the rows knows another training, so it pays only where training
        is most of a trial (docs/search.md has the measurement)."""
        return RUNGS[0] if self.training > self.evaluation else RUNGS[1]

    @property
    def new(self) -> float:
        """Of a new trial, which may stop at its first look."""
        rows, documents = self.first
        first = Look(rows=rows, documents=documents, values=(), violations={}, errors={}, seconds=0.0)
        return self.training * rows + self._searched * documents + _GO_ON * self.left(first)


class Fidelity:
    def __init__(self, state: SweepState, intake: Intake, reporter: OutcomeReporter):
        self._state, self._intake, self._reporter = state, intake, reporter

    def pause_of(self, job: Job) -> dict[str, Any] | None:
        """Where a job pauses next, for its worker; None for one that runs to its end."""
        trial = self._state.queue.pending.get(job.number) if job.number is not None else None
        if trial is None or trial.reported or not self._state.config.search.multi_fidelity:
            return None
        if trial.look is None:
            costs = self._costs()
            at: tuple[float, float] | None = RUNGS[1] if costs is None else costs.first
        else:
            at = rung(trial.look)
        return None if at is None else criteria(self._state.config, *at)

    def next(self) -> bool:
        """Queues the next job, of a paused trial or of a new one; False where none is left."""
        paused = self._state.queue.paused
        if not paused:
            return self._intake.ask()
        found = self._state.study.weigh(list(paused))
        if self._state.may_ask:
            if found is not None and (best := self._worth_it(found)) is not None:
                self._go_on(best)
                return True
            if self._intake.ask():
                return True
        return self._finish(found)

    def _worth_it(self, found: Prospects) -> int | None:
        """The paused trial that promises more for its cost than a new one; None where a new one does."""
        costs = self._costs()
        if costs is None:
            return None
        worth = {
            number: found.gains[number] / max(costs.left(look), 1e-9)
            for number, look in self._looks().items()
            # the report half teaches the search nothing, and later trials may still beat this one
            if found.chances[number] >= CHANCE and rung(look) is not None
        }
        best = max(worth, key=lambda number: worth[number], default=None)
        return best if best is not None and worth[best] > found.new / max(costs.new, 1e-9) else None

    def _looks(self) -> dict[int, Look]:
        """The newest looks of the paused trials, by number."""
        return {number: trial.look for number, trial in self._state.queue.paused.items() if trial.look is not None}

    def _costs(self) -> Costs | None:
        """None before a trial has paused."""
        paused = self._state.queue.paused
        if not paused:
            return None
        baseline = self._state.records.baseline(next(iter(paused.values())).baseline)
        if baseline is None:
            return None
        costs = Costs(self._state.config, baseline)
        costs.learn(list(self._looks().values()))
        return costs

    def _finish(self, found: Prospects | None) -> bool:
        """Stops the paused trials whose chances add up to less than the risk, and goes on with the likeliest other one."""
        paused = self._state.queue.paused
        if found is None:  # too few trials to know anything of them
            self._go_on(next(iter(paused)))
            return True
        members = len(self._state.front) + sum(found.chances.values())
        stopped = [one.given_up for one in self._state.manifest.trials.values() if one.given_up is not None]
        risk = RISK * members - sum(one.chance or 0.0 for one in stopped)
        for number in sorted(paused, key=lambda number: found.chances[number]):
            risk -= found.chances[number]
            if risk < 0:
                break
            self._reporter.stop(paused[number], found.chances[number])
        if not paused:
            return False
        self._go_on(max(paused, key=lambda number: found.chances[number]))
        return True

    def _go_on(self, number: int) -> None:
        self._state.manifest.note(self._state.queue.paused[number])
        self._state.queue.go_on(number)
