"""Takes trials from the study into the manifest and the queue."""

from typing import Any

from orchestrator.search.study_client import Proposal, StudyTrial
from orchestrator.sweep.manifest import CONTRADICTORY
from orchestrator.sweep.queue import PendingTrial
from orchestrator.sweep.state import SweepState


class Intake:
    def __init__(self, state: SweepState):
        self._state = state

    def ask(self) -> bool:
        """Queues the jobs of the next point; False when the budget or the space has no more."""
        state = self._state
        if not state.may_ask:
            return False
        with state.study.drivers.alone():
            if state.study.drivers.shared:
                self._learn_from_others()
                if not state.may_ask:
                    return False
            proposal = state.study.ask()
            if proposal is None:
                state.exhausted = True
                return False
            self._take(proposal)
        return True

    def adopt(self) -> None:
        """Takes over the running trials that no living driver runs."""
        for proposal in self._state.study.adopt():
            self._take(proposal)

    def derive(self, settings: dict[str, Any]) -> None:
        """Takes up the other points that the training at `settings` gives; the budget does not count them."""
        state = self._state
        for point in state.config.siblings(settings):
            if not state.manifest.seen(point):
                self._take(state.study.begin(point))

    def _take(self, proposal: Proposal) -> None:
        state = self._state
        try:
            specs = state.config.specs(proposal.settings)
        except ValueError:  # settings that are each valid and contradict each other
            state.study.reject(proposal)
            state.counts["failed"] += 1
            state.manifest.note(PendingTrial(proposal.number, proposal.settings, []), CONTRADICTORY)
            return
        state.study.accept(proposal.number, specs[0].key)
        trial = PendingTrial(proposal.number, proposal.settings, specs, proposal.free)
        state.manifest.note(trial)
        if (reason := state.policy.unusable.get(trial.baseline)) is not None:
            trial.failure = reason
            self.hold_back(trial)
            return
        state.queue.pending[trial.number] = trial
        state.queue.add(trial.jobs())

    def hold_back(self, trial: PendingTrial) -> bool:
        """A trial that failed is no longer pending. Whether it caused its own failure (see FailurePolicy.hold_back)."""
        state = self._state
        # the same training would fail for its siblings, so they are not proposed
        state.manifest.count_as_seen(state.config.spec(point).key for point in state.config.siblings(trial.settings))
        return state.policy.hold_back(trial)

    def note(self, trial: StudyTrial) -> PendingTrial:
        """Notes a valid trial as the study has it. ValueError where its settings are none of this version."""
        settings = self._state.study.settings(trial)
        noted = PendingTrial(trial.number, settings, self._state.config.specs(settings), trial.free, reported=True)
        self._state.manifest.note(noted, trial.failure, trial.given_up)
        return noted

    def _learn_from_others(self) -> None:
        """Notes what other drivers asked for and reported since the last look, and what they spent."""
        state = self._state
        state.budget.count_others(state.study.drivers.spent()[0])
        for trial in state.study.trials():
            if trial.state == "waiting" or trial.key is None:
                continue
            noted = state.manifest.trials.get(trial.number)
            if noted is None or (noted.failure, noted.given_up) != (trial.failure, trial.given_up):
                self.note(trial)
