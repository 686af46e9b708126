"""Reports the outcomes of jobs to the study, the manifest and the observers."""

import math
from collections.abc import Mapping
from typing import Any

from analysis.metrics.names import Estimate, parse_constraint
from orchestrator.errors import SweepFailed
from orchestrator.search.looks import Look
from orchestrator.search.study_client import Outcome
from orchestrator.sweep.events import Emitter
from orchestrator.sweep.failure_policy import BASELINE_FAILED, BASELINE_UNDEFINED, undefined_on
from orchestrator.sweep.intake import Intake
from orchestrator.sweep.queue import Job, PendingTrial
from orchestrator.sweep.state import SweepState
from trials.ledger.record import GivenUp, TrialRecord


class OutcomeReporter:
    def __init__(self, state: SweepState, intake: Intake, emitter: Emitter):
        self._state, self._intake, self._emitter = state, intake, emitter
        self._constraints = {str(one): one for one in map(parse_constraint, state.config.search.constraints)}
        self._unannounced: list[tuple[Job, TrialRecord]] = []  # trials that finished before their baseline

    def report(self, job: Job, record: TrialRecord, ran: bool = True) -> None:
        """Reports a job's record; `ran` is False for one that was found in the ledger."""
        pending = self._state.queue.pending
        if record.failure is not None:
            self._failed(job, record)
        elif job.number is None:
            self._baseline_finished(job, record)
        else:
            if ran:
                self._state.policy.success()
            self._announce(job, record)
            if job.number in pending:
                self._settle(pending[job.number])

    def spend(self, record: TrialRecord, seconds: float | None) -> None:
        """Counts a run against the budget; `seconds` is the worker's time, by default the record's."""
        state = self._state
        gpus = state.config.resources.gpus_per_trial if record.hardware.get("gpu") else 1.0
        state.budget.spend(sum(record.seconds.values()) if seconds is None else seconds, gpus)
        self.write_spent()

    def write_spent(self) -> None:
        budget = self._state.budget
        self._state.study.drivers.spend(budget.gpu_seconds, budget.spent[1])

    def give_up(self, job: Job, reason: str, seconds: float) -> None:
        """Reports a trial that the front beat while it was evaluated: it has no values and is not a failure."""
        state = self._state
        baseline = state.records.baseline(job.spec.baseline().key)
        if baseline is not None:
            self.spend(baseline, seconds)  # the baseline's record says whether the machine has a GPU
        self._emitter.trial("trial_given_up", job, reason=reason)
        state.policy.success()  # it was trained and partly scored: the machine works
        trial = state.queue.pending.pop(job.number, None) if job.number is not None else None
        if trial is None or trial.reported or state.lost_to_another():
            return
        given_up = GivenUp(reason=reason, seconds=round(seconds, 3))
        state.study.prune(trial.number, given_up, self._constraints)  # before the manifest, which may lag
        state.manifest.note(trial, given_up=given_up)
        state.counts["given up"] += 1
        self.report_failed()
        state.manifest.write(state.budget.spent)

    def pause(self, job: Job, found: Mapping[str, Any], seconds: float) -> None:
        """Notes what a paused trial has shown, as pause.pausing measured it. It is neither done nor given up yet."""
        state = self._state
        baseline = state.records.baseline(job.spec.baseline().key)
        if baseline is not None:
            self.spend(baseline, seconds)
        state.policy.success()
        trial = state.queue.pending.get(job.number) if job.number is not None else None
        if trial is None or state.lost_to_another():
            return
        metrics = found["metrics"]
        trial.look = Look(
            rows=found["rows"],
            documents=found["documents"],
            values=tuple(metrics[one.metric] for one in state.config.search.objectives),
            violations={name: one.violation(metrics[one.metric]) for name, one in self._constraints.items()},
            errors=found["errors"],
            seconds=round(seconds + (trial.look.seconds if trial.look else 0.0), 3),
        )
        state.study.look(trial.number, trial.look)
        state.queue.pause(trial)
        state.manifest.note(trial, paused=True)
        self._emitter.trial("trial_paused", job, metrics=metrics, reason=seen(trial.look))
        self.report_failed()
        state.manifest.write(state.budget.spent)

    def stop(self, trial: PendingTrial, chance: float) -> None:
        """Reports a paused trial that does not go on."""
        state = self._state
        del state.queue.paused[trial.number]
        if trial.look is None or state.lost_to_another():
            return
        reason = f"stopped {seen(trial.look)}: it is on the front with a probability of {chance:.1%}"
        given_up = GivenUp(reason=reason, seconds=trial.look.seconds, chance=chance)
        self._emitter.trial("trial_given_up", trial.jobs()[0], reason=reason)
        state.study.prune(trial.number, given_up, self._constraints)
        state.manifest.note(trial, given_up=given_up)
        state.counts["given up"] += 1

    # ------------------------------------------------------------------ records

    def _failed(self, job: Job, record: TrialRecord) -> None:
        assert record.failure is not None
        self._emitter.trial("trial_failed", job, record)
        state, place = self._state, self._state.records.place(record.key)
        if job.number is None:
            ends = state.policy.baseline_failed(job.spec.key, record.failure, place)
        else:
            ends = state.policy.trial_failed(job.number, record.failure, place, state.slots)
        if ends is not None:
            state.failed = SweepFailed(ends)
        if job.number in state.queue.pending:
            state.queue.pending[job.number].failure = record.failure.kind
            self._settle(state.queue.pending[job.number])
        self._settle_unusable()

    def _baseline_finished(self, job: Job, record: TrialRecord) -> None:
        self._emitter.trial("trial_finished", job, record)
        self.judge_baseline(record)
        self._settle_unusable()
        waiting, self._unannounced = self._unannounced, []
        for early, found in waiting:
            self._announce(early, found)
        for trial in list(self._state.queue.pending.values()):
            self._settle(trial)

    def judge_baseline(self, baseline: TrialRecord) -> None:
        """Puts the base on the front as a point. Excludes it where an objective or a constraint is undefined on it: none of its
        trials could be on the front."""
        state = self._state
        wanted = [objective.metric for objective in state.config.search.objectives]
        wanted += [constraint.metric for constraint in self._constraints.values()]
        reason = undefined_on(baseline, state.records.metrics(baseline, baseline), wanted)
        if reason is None:
            values = state.records.untrained(baseline, wanted)
            of_constraints = zip(self._constraints.values(), values[len(state.config.search.objectives) :], strict=True)
            if all(one.violation(value) <= 0 for one, value in of_constraints):
                of_objectives = values[: len(state.config.search.objectives)]
                state.front.add_base(baseline.key, of_objectives)
                if all(map(math.isfinite, of_objectives)):
                    state.study.note_base(baseline.key, of_objectives)
            return
        if state.policy.baseline_undefined(baseline.key):
            state.failed = SweepFailed(reason)
        else:
            state.notice(f"{reason}; no trial runs on this base")

    def _announce(self, job: Job, record: TrialRecord) -> None:
        baseline = self._state.records.baseline(job.spec.baseline().key)
        if baseline is None:
            self._unannounced.append((job, record))
            return
        self._emitter.trial("trial_finished", job, record, metrics=self._state.records.metrics(record, baseline))

    # ------------------------------------------------------------------ trials

    def _settle_unusable(self) -> None:
        """Ends the pending trials of unusable baselines."""
        unusable = self._state.policy.unusable
        for number, paused in list(self._state.queue.paused.items()):
            if paused.baseline in unusable:
                self._state.queue.go_on(number)
        for trial in [trial for trial in self._state.queue.pending.values() if trial.baseline in unusable]:
            trial.failure = unusable[trial.baseline]
            self._settle(trial)

    def _settle(self, trial: PendingTrial) -> None:
        """Reports the trial if it has failed, or if the records of all replicates and of the baseline exist."""
        state = self._state
        if trial.failure is not None:
            del state.queue.pending[trial.number]
            if self._intake.hold_back(trial):
                self.report_failed()
            return
        jobs = trial.jobs()
        records = [state.records.complete(job.spec.key) for job in jobs]
        baselines = [state.records.baseline(job.spec.baseline().key) for job in jobs]
        pairs = [
            (record, baseline)
            for record, baseline in zip(records, baselines, strict=True)
            if record is not None and baseline is not None
        ]
        if len(pairs) < len(jobs):  # a record that was there may have been damaged or removed since
            state.queue.add_lost(job for job, record in zip(jobs, records, strict=True) if record is None)
            return
        del state.queue.pending[trial.number]
        if not trial.reported:
            found = [state.records.estimates(record, baseline) for record, baseline in pairs]
            self._report_metrics(trial, {name: _mean([estimates.get(name) for estimates in found]) for name in found[0]})

    def _report_metrics(self, trial: PendingTrial, estimates: dict[str, Estimate | None]) -> None:
        state = self._state
        if state.lost_to_another():
            return
        metrics = {name: found.value if found else None for name, found in estimates.items()}
        wanted = [objective.metric for objective in state.config.search.objectives]
        values = [metrics.get(name) for name in wanted]
        defined = [float(value) for value in values if value is not None and math.isfinite(value)]
        if len(defined) < len(values):
            state.policy.hold_back(trial)
        else:
            violations = {name: one.violation(metrics.get(one.metric)) for name, one in self._constraints.items()}
            wanted += [one.metric for one in self._constraints.values()]
            errors = {name: found.stderr for name in wanted if (found := estimates.get(name)) and found.stderr is not None}
            state.study.complete(trial.number, Outcome(defined, violations, state.front.behind_base(defined), errors))
            state.counts["done"] += 1
            feasible = all(violation <= 0 for violation in violations.values())
            if feasible and state.front.add(trial.number, trial.specs[0].key, defined):
                self._emitter("front_changed", front=state.front.rows())
            self._intake.derive(trial.settings)
        self.report_failed()

    def report_failed(self) -> None:
        """Reports the failed trials that were held back, to the study too."""
        state = self._state
        if state.lost_to_another():
            return
        for trial in state.policy.release():
            if not trial.reported:
                unusable = trial.failure if trial.failure in (BASELINE_FAILED, BASELINE_UNDEFINED) else None
                state.study.fail(trial.number, unusable)
                if unusable is not None:
                    state.manifest.note(trial, unusable)
            state.counts["failed"] += 1


def seen(look: Look) -> str:
    """'after 25% of its training rows and 25% of the searched documents'"""
    return f"after {look.rows:.0%} of its training rows and {look.documents:.0%} of the searched documents"


def _mean(replicates: list[Estimate | None]) -> Estimate | None:
    """The mean over replicates, which answered the same documents. None where a value is undefined."""
    known = [found for found in replicates if found is not None]
    if not known or len(known) < len(replicates):
        return None
    errors = [found.stderr for found in known if found.stderr is not None and math.isfinite(found.stderr)]
    stderr = sum(errors) / len(errors) if errors else None
    return Estimate(sum(found.value for found in known) / len(known), stderr)
