"""The sweep's Optuna study behind plain values: proposals out, outcomes in. The sweep never imports Optuna."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import optuna
from optuna.trial import FrozenTrial, Trial, TrialState

from orchestrator.config.model import SweepConfig
from orchestrator.search import earlier, looks, optuna_space, sampler
from orchestrator.search.driver_lease import Drivers
from orchestrator.search.earlier import EarlierTrial
from orchestrator.search.evidence import BASE, ERRORS, KEY
from orchestrator.search.looks import Look
from orchestrator.search.prospects import Prospects
from orchestrator.search.study_storage import open_study
from trials.ledger.record import GivenUp

State = Literal["running", "waiting", "complete", "failed", "pruned"]

# User attributes of a trial, read back by study_check.
_SETTINGS = "settings"  # of a trial whose settings contradict each other; the others have a key
_FAILURE = "failure"
_FREE = "free"
_GIVEN_UP = "given_up"
_COUNTS_BASE = "counts_base"  # of the study; one that an earlier version began has no constraint for the base
_BEATS_BASE = "as good as the base in some objective"
_LARGEST_VIOLATION = 1e6  # Optuna's storages take no infinity, which an undefined metric would give
_STATES: dict[TrialState, State] = {
    TrialState.RUNNING: "running",
    TrialState.WAITING: "waiting",
    TrialState.COMPLETE: "complete",
    TrialState.FAIL: "failed",
    TrialState.PRUNED: "pruned",
}


@dataclass(frozen=True)
class Proposal:
    """A running trial of this driver."""

    number: int
    settings: dict[str, Any]
    free: bool
    """Derived from the training of another trial."""
    look: Look | None = None
    """What it had shown when it was paused; None for one that never was."""


@dataclass(frozen=True)
class Outcome:
    """What a finished trial tells the study."""

    values: Sequence[float]
    """Of the objectives."""
    violations: Mapping[str, float]
    """By constraint: how far it is violated, 0 or less where it is kept."""
    behind_base: float = 0.0
    """Above 0 for a trial that is worse than a base in every objective, which no sampler must take for a good one."""
    errors: Mapping[str, float] = field(default_factory=dict)
    """Known standard errors, by metric."""


@dataclass(frozen=True)
class StudyTrial:
    """A trial as the study has it."""

    number: int
    state: State
    params: dict[str, Any]
    """Optuna's parameters; `StudyClient.settings` converts them."""
    values: list[float]
    constraints: dict[str, float]
    key: str | None
    rejected: dict[str, Any]
    """The settings of a trial without a key, which contradict each other."""
    failure: str | None
    """Why its baseline rules it out."""
    given_up: GivenUp | None
    free: bool


class StudyClient:
    """All of Optuna that a sweep uses. Call it in `study_storage.opening` until the sweep is open."""

    def __init__(self, study: optuna.Study, config: SweepConfig, drivers: Drivers):
        self.optuna_study, self.drivers = study, drivers
        self._config = config
        self._proposed: dict[int, Trial] = {}
        self._finished: dict[int, StudyTrial] = {}  # Optuna never changes a finished trial

    @classmethod
    def open(cls, config: SweepConfig, folder: Path, seen: sampler.Seen, notice: Callable[[str], None]) -> "StudyClient":
        """`seen` reports whether settings have been proposed, here or by another driver, and never takes that back."""
        study = open_study(config, folder, notice)
        drivers = Drivers(study, folder, shared=config.search.study != "sqlite")
        study.sampler = sampler.make_sampler(config, len(study.get_trials(deepcopy=False)), seen)
        return cls(study, config, drivers)

    # ------------------------------------------------------------------ reading

    def trials(self) -> list[StudyTrial]:
        return [self._plain(frozen) for frozen in self.optuna_study.get_trials(deepcopy=False)]

    def settings(self, trial: StudyTrial) -> dict[str, Any]:
        return optuna_space.settings(self._config, trial.params)

    def _plain(self, frozen: FrozenTrial) -> StudyTrial:
        if (known := self._finished.get(frozen.number)) is not None:
            return known
        attributes = frozen.user_attrs
        trial = StudyTrial(
            number=frozen.number,
            state=_STATES[frozen.state],
            params=frozen.params,
            values=frozen.values or [],
            constraints=frozen.constraints,
            key=attributes.get(KEY),
            rejected=attributes.get(_SETTINGS, {}),
            failure=attributes.get(_FAILURE),
            given_up=GivenUp.model_validate(attributes[_GIVEN_UP]) if _GIVEN_UP in attributes else None,
            free=_FREE in attributes,
        )
        if frozen.state.is_finished():
            self._finished[frozen.number] = trial
        return trial

    # ------------------------------------------------------------------ proposals

    def ask(self) -> Proposal | None:
        """The next point, queued ones first; None where every point of the space has been seen."""
        trial = sampler.ask(self.optuna_study)
        if trial is None:
            return None
        self.drivers.claim(trial)
        return self._proposal(trial)

    def adopt(self) -> Iterator[Proposal]:
        """Takes over the running trials that no living driver runs. With sqlite call it once, at the start."""
        for frozen in self.drivers.adopt(self.optuna_study.get_trials(deepcopy=False)):
            yield self._proposal(self.drivers.trial(frozen))

    def begin(self, settings: Mapping[str, Any]) -> Proposal:
        """Starts a free trial at this point, without the sampler and ahead of the queued points."""
        frozen = sampler.begin(self.optuna_study, self._config, settings, {_FREE: True})
        return self._proposal(self.drivers.trial(frozen))

    def _proposal(self, trial: Trial) -> Proposal:
        self._proposed[trial.number] = trial
        settings, given = optuna_space.suggest(self._config, trial), trial.user_attrs
        return Proposal(trial.number, settings, _FREE in given, looks.newest(given))

    @property
    def is_new(self) -> bool:
        """No driver has enqueued its first points yet."""
        return self.optuna_study.user_attrs.get("opened") is None

    def keep_earlier(self, trials: Sequence[EarlierTrial]) -> None:
        """Trials of other sweeps, for the sampler."""
        earlier.keep(self.optuna_study, trials)

    def enqueue(self, points: Sequence[Mapping[str, Any]]) -> None:
        """Queues the points that are not in the queue. The study is no longer new then."""
        waiting = self.optuna_study.get_trials(deepcopy=False, states=(TrialState.WAITING,))
        queued = [trial.system_attrs.get("fixed_params") for trial in waiting]
        for point in points:
            if (params := optuna_space.enqueueable(self._config, point)) not in queued:
                self.optuna_study.enqueue_trial(params)
        if self.is_new:
            self.optuna_study.set_user_attr(_COUNTS_BASE, True)
        self.optuna_study.set_user_attr("opened", True)

    # ------------------------------------------------------------------ outcomes

    def accept(self, number: int, key: str) -> None:
        """The settings of the proposal are valid and make this key."""
        self._proposed[number].set_user_attr(KEY, key)

    def reject(self, proposal: Proposal) -> None:
        """The settings of the proposal contradict each other."""
        self._proposed[proposal.number].set_user_attr(_SETTINGS, proposal.settings)
        self._tell(proposal.number, TrialState.FAIL)

    def note_base(self, key: str, values: Sequence[float]) -> None:
        """The objectives' values of an untrained base that keeps the constraints; `key` is its baseline's."""
        name = f"{BASE}{key}"
        if self.optuna_study.user_attrs.get(name) != list(values):
            self.optuna_study.set_user_attr(name, list(values))

    def look(self, number: int, look: Look) -> None:
        """Notes what the paused trial has shown; it stays a running trial of the study."""
        trial = self._proposed[number]
        limited = {name: min(by, _LARGEST_VIOLATION) for name, by in look.violations.items()}
        noted = look.model_copy(update={"violations": limited})
        trial.set_user_attr(looks.LOOKS, [*trial.user_attrs.get(looks.LOOKS, []), noted.model_dump(mode="json")])

    def weigh(self, paused: Sequence[int]) -> Prospects | None:
        """What going on with the paused trials promises; None while too little is known, or with another sampler."""
        return sampler.weigh(self.optuna_study, paused)

    def complete(self, number: int, outcome: Outcome) -> None:
        trial, violations = self._proposed[number], outcome.violations
        for name, violation in violations.items():
            trial.set_constraint(name, min(violation, _LARGEST_VIOLATION))
        if self._counts_base:
            trial.set_constraint(_BEATS_BASE, outcome.behind_base)
        trial.set_user_attr(ERRORS, dict(outcome.errors))
        if violations:  # optuna-dashboard shows attributes in full, but constraints as a badge only
            words = [f"{name} is {'kept' if by <= 0 else 'violated'}, by {abs(by):.3g}" for name, by in violations.items()]
            trial.set_user_attr("constraints", "; ".join(words))
        self._tell(number, TrialState.COMPLETE, outcome.values)

    def fail(self, number: int, baseline_failure: str | None) -> None:
        """`baseline_failure` says why the trial's baseline rules it out, where that is the reason."""
        if baseline_failure is not None:
            self._proposed[number].set_user_attr(_FAILURE, baseline_failure)
        self._tell(number, TrialState.FAIL)

    def prune(self, number: int, given_up: GivenUp, constraints: Collection[str]) -> None:
        """A pruned trial has no values, and is no failure."""
        trial = self._proposed[number]
        trial.set_user_attr(_GIVEN_UP, given_up.model_dump())
        for name in [*constraints, *([_BEATS_BASE] if self._counts_base else [])]:
            # otherwise TPE ranks it above every trial that violates a constraint
            trial.set_constraint(name, _LARGEST_VIOLATION)
        self._tell(number, TrialState.PRUNED)

    @property
    def _counts_base(self) -> bool:
        """The trials of a study have the same constraints, from its first one on: the Gaussian process needs that."""
        return bool(self.optuna_study.user_attrs.get(_COUNTS_BASE))

    def _tell(self, number: int, state: TrialState, values: Sequence[float] | None = None) -> None:
        self.optuna_study.tell(self._proposed.pop(number), values, state=state, skip_if_finished=True)
