"""Moves trials from the study into the manifest and the queue."""

from typing import Any

from orchestrator.search.study_client import Proposal, StudyTrial
from orchestrator.sweep.manifest import CONTRADICTORY
from orchestrator.sweep.queue import PendingTrial
from orchestrator.sweep.state import SweepState


class Intake:
    def __init__(self, state: SweepState):
        self._state = state

    def ask(self) -> bool:
        """Queues the jobs of the next point; False where the budget or the space is exhausted."""
        state = self._state
        if not state.may_ask:
            return False
        with state.study.drivers.alone():
            self.learn_from_others()
            if not state.may_ask:
                return False
            proposal = state.study.ask()
            if proposal is None:
                state.exhausted = True
                return False
            self._start(proposal)
        return True

    def adopt(self) -> None:
        """Queues the running trials that no living driver runs."""
        for proposal in self._state.study.adopt():
            self._start(proposal)

    def derive(self, settings: dict[str, Any]) -> None:
        """Queues the other points that derive from the training at `settings`. The budget does not count them."""
        state = self._state
        for point in state.config.siblings(settings):
            if not state.manifest.seen(point):
                self._start(state.study.begin(point))

    def _start(self, proposal: Proposal) -> None:
        state = self._state
        try:
            specs = state.config.specs(proposal.settings)
        except ValueError:  # each setting is valid, but they contradict each other
            state.study.reject(proposal)
            self.reject(proposal.number, proposal.settings)
            return
        state.study.accept(proposal.number, specs[0].key)
        trial = PendingTrial(proposal.number, proposal.settings, specs, proposal.free, look=proposal.look)
        state.manifest.note(trial)
        if (reason := state.policy.unusable.get(trial.baseline)) is not None:
            trial.failure = reason
            self.hold_back(trial)
            return
        if trial.look is not None and state.config.search.multi_fidelity:  # an earlier command had paused it
            state.manifest.note(trial, paused=True)
            state.queue.pause(trial)
            return
        state.queue.pending[trial.number] = trial
        state.queue.add(trial.jobs())

    def reject(self, number: int, settings: dict[str, Any]) -> None:
        """Counts and notes a trial whose settings contradict each other."""
        self._state.counts["failed"] += 1
        self._state.manifest.note(PendingTrial(number, settings, []), CONTRADICTORY)

    def hold_back(self, trial: PendingTrial) -> bool:
        """FailurePolicy.hold_back, for a trial that is not pending; its siblings are not proposed."""
        state = self._state
        # siblings derive from the same training, which would fail again
        state.manifest.count_as_seen(state.config.spec(point).key for point in state.config.siblings(trial.settings))
        return state.policy.hold_back(trial)

    def note(self, trial: StudyTrial) -> PendingTrial:
        """Notes a valid trial of the study. ValueError where this version does not allow its settings."""
        settings = self._state.study.settings(trial)
        noted = PendingTrial(trial.number, settings, self._state.config.specs(settings), trial.free, reported=True)
        self._state.manifest.note(noted, trial.failure, trial.given_up)
        return noted

    def learn_from_others(self) -> None:
        """Notes the trials that other drivers started or reported since the last call, and what they spent. Call it in
        `Drivers.alone`."""
        state = self._state
        if not state.study.drivers.shared:
            return
        state.budget.count_others(state.study.drivers.spent()[0])
        for trial in state.study.trials():
            if trial.state == "waiting" or trial.key is None:
                continue
            noted = state.manifest.trials.get(trial.number)
            if noted is not None and noted.failure == CONTRADICTORY:
                continue
            if noted is None or (noted.failure, noted.given_up) != (trial.failure, trial.given_up):
                try:
                    self.note(trial)
                except (KeyError, ValueError):  # another version of the program allowed these settings
                    state.manifest.note(PendingTrial(trial.number, trial.params, [], trial.free), CONTRADICTORY)
