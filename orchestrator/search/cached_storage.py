"""Caches a study's trials in memory: each trial is read from the database once, this driver's running trials never.

Optuna's own cache reads every running trial whenever a sampler reads the study, several times a trial: with a thousand running
trials that is most of a driver's time. A write goes to the database first, then to memory.
"""

import copy
import json
import threading
from collections.abc import Container, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import sqlalchemy
from optuna.distributions import BaseDistribution
from optuna.storages import RDBStorage
from optuna.storages._cached_storage import _CachedStorage, _StudyInfo
from optuna.storages._rdb.models import TrialModel
from optuna.trial import FrozenTrial, TrialState

_Id = int  # a trial's id in the database; its number counts within the study
_FINISHED = [state for state in TrialState if state.is_finished()]


class CachedStorage(_CachedStorage):
    """An RDBStorage with its trials in memory.

    A running trial that was created, started or written here is owned by this object. By Optuna's contract only the owner
    writes a running trial. Nobody owns a waiting trial.
    """

    def __init__(self, backend: RDBStorage):
        super().__init__(backend)
        self._lock: Any = threading.RLock()
        self._owned: set[_Id] = set()
        self._read_to: dict[int, _Id] = {}  # by study: memory has every trial up to this one

    def __setstate__(self, state: dict[Any, Any]) -> None:
        super().__setstate__(state)
        self._lock = threading.RLock()

    # ------------------------------------------------------------------ writing

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        with self._lock:
            trial_id = super().create_new_trial(study_id, template_trial)
            if template_trial is None or template_trial.state == TrialState.RUNNING:
                self._owned.add(trial_id)
            self._keep(study_id, [self._known(trial_id)])
            return trial_id

    def set_trial_param(
        self, trial_id: int, param_name: str, param_value_internal: float, distribution: BaseDistribution
    ) -> None:
        with self._writing(trial_id):
            super().set_trial_param(trial_id, param_name, param_value_internal, distribution)
            value = distribution.to_external_repr(param_value_internal)
            self._note(trial_id, "distributions", param_name, distribution)
            self._note(trial_id, "params", param_name, value)

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        with self._writing(trial_id):
            super().set_trial_user_attr(trial_id, key, value)
            self._note(trial_id, "user_attrs", key, json.loads(json.dumps(value)))

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        with self._writing(trial_id):
            super().set_trial_system_attr(trial_id, key, value)
            self._note(trial_id, "system_attrs", key, json.loads(json.dumps(value)))

    def set_trial_intermediate_value(self, trial_id: int, step: int, intermediate_value: float) -> None:
        with self._writing(trial_id):
            super().set_trial_intermediate_value(trial_id, step, intermediate_value)
            self._note(trial_id, "intermediate_values", step, intermediate_value)

    def set_trial_state_values(self, trial_id: int, state: TrialState, values: Sequence[float] | None = None) -> bool:
        with self._writing(trial_id):
            done = super().set_trial_state_values(trial_id, state, values)
            if done and state == TrialState.RUNNING:
                self._owned.add(trial_id)
            elif state.is_finished():
                self._owned.discard(trial_id)
            self._reread(trial_id)  # the database sets the times of start and end
            return done

    # ------------------------------------------------------------------ reading

    def get_trial(self, trial_id: int) -> FrozenTrial:
        with self._lock:
            if trial_id in self._owned:
                return _copy(self._known(trial_id))  # Optuna's Trial writes into what it gets
            return super().get_trial(trial_id)

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        """Trials by number. Reads the new and the unfinished trials of other processes again."""
        with self._lock:
            self._read_trials_from_remote_storage(study_id)
            study = self._studies[study_id]
            among: Iterable[FrozenTrial] = study.trials.values()
            if states is not None and not any(state in states for state in _FINISHED):
                among = [self._known(trial_id) for trial_id in study.unfinished_trial_ids]
            found = [trial for trial in among if states is None or trial.state in states]
        found.sort(key=lambda trial: trial.number)
        return copy.deepcopy(found) if deepcopy else found

    def _read_trials_from_remote_storage(self, study_id: int) -> None:
        study = self._studies.setdefault(study_id, _StudyInfo())
        newer = self._newer(study_id)
        unknown = {trial_id for trial_id in newer if trial_id not in self._trial_id_to_study_id_and_number}
        others = {trial_id for trial_id in study.unfinished_trial_ids if trial_id not in self._owned}
        if wanted := unknown | others:
            self._keep(study_id, self._backend._get_trials(study_id, None, wanted, max(wanted)))
        if newer:
            self._read_to[study_id] = max(newer)

    def _newer(self, study_id: int) -> list[_Id]:
        # the database creates a study's trials one at a time, so no smaller id appears later
        wanted = sqlalchemy.select(TrialModel.trial_id).where(
            TrialModel.study_id == study_id, TrialModel.trial_id > self._read_to.get(study_id, -1)
        )
        with self._backend.engine.connect() as connection:
            return list(connection.execute(wanted).scalars())

    # ------------------------------------------------------------------ memory

    def _known(self, trial_id: _Id) -> FrozenTrial:
        study_id, number = self._trial_id_to_study_id_and_number[trial_id]
        return self._studies[study_id].trials[number]

    def _keep(self, study_id: int, trials: list[FrozenTrial]) -> None:
        self._add_trials_to_cache(study_id, trials)
        unfinished = self._studies[study_id].unfinished_trial_ids
        for trial in trials:
            (unfinished.discard if trial.state.is_finished() else unfinished.add)(trial._trial_id)

    def _reread(self, trial_id: _Id) -> None:
        if trial_id in self._trial_id_to_study_id_and_number:
            self._keep(self._trial_id_to_study_id_and_number[trial_id][0], [self._backend.get_trial(trial_id)])

    def _note(self, trial_id: _Id, part: str, key: Any, value: Any) -> None:
        """Adds an entry that was written to the database to a copy of the trial: trials that were returned do not change."""
        if trial_id not in self._owned:
            self._owned.add(trial_id)
            self._reread(trial_id)  # its previous owner may have written more than was read
            return
        trial = _copy(self._known(trial_id))
        getattr(trial, part)[key] = value
        self._keep(self._trial_id_to_study_id_and_number[trial_id][0], [trial])

    @contextmanager
    def _writing(self, trial_id: _Id) -> Iterator[None]:
        """Wraps a write. After one that failed, the trial is read from the database again: it may have been written."""
        with self._lock:
            try:
                yield
            except BaseException:
                self._owned.discard(trial_id)
                raise


def _copy(trial: FrozenTrial) -> FrozenTrial:
    """A shallow copy whose dicts may be changed."""
    made = copy.copy(trial)
    made.params, made.distributions = dict(trial.params), dict(trial.distributions)
    made.user_attrs, made.system_attrs = dict(trial.user_attrs), dict(trial.system_attrs)
    made.intermediate_values = dict(trial.intermediate_values)
    return made
