"""Looks teach as outcomes with large errors do."""

import pytest
from optuna.distributions import FloatDistribution
from optuna.trial import TrialState, create_trial

from orchestrator.search import looks
from orchestrator.search.evidence import ERRORS
from orchestrator.search.looks import LOOKS, ROWS, Look


def look(rows, documents, value=0.1):
    return Look(rows=rows, documents=documents, values=(value, 0.0), violations={"c": -1.0}, errors={"m": 0.1}, seconds=1.0)


def trial(state, *shown):
    return create_trial(
        state=state,
        values=[0.5, 0.5] if state == TrialState.COMPLETE else None,
        params={"x": 0.5},
        distributions={"x": FloatDistribution(0, 1)},
        user_attrs={LOOKS: [one.model_dump(mode="json") for one in shown]} if shown else {},
    )


def test_the_newest_look_after_the_same_rows_stands_for_the_others():
    shown = looks.evidence([trial(TrialState.RUNNING, look(0.25, 0.25), look(1, 0.25, 0.2), look(1, 1, 0.3))])
    assert [(one.user_attrs[ROWS], one.values[0]) for one in shown] == [(0.25, 0.1), (1, 0.3)]
    assert shown[0].constraints == {"c": -1.0}
    assert shown[0].user_attrs[ERRORS] == {"m": 0.1}
    assert shown[0].state == TrialState.COMPLETE


def test_a_complete_trial_replaces_its_looks_at_all_rows_alone():
    shown = looks.evidence([trial(TrialState.COMPLETE, look(0.25, 0.25), look(1, 0.25))])
    assert [one.values for one in shown] == [[0.1, 0.0], [0.5, 0.5]]


def test_a_stopped_trial_teaches_what_it_has_shown_and_one_without_a_look_that_it_ended():
    stopped, failed = trial(TrialState.PRUNED, look(1, 0.25)), trial(TrialState.FAIL)
    shown = looks.evidence([stopped, failed, trial(TrialState.RUNNING)])
    assert [one.state for one in shown] == [TrialState.COMPLETE, TrialState.FAIL]


def test_all_rows_are_at_one_and_a_quarter_at_zero():
    assert looks.rows_unit(1.0) == pytest.approx(1.0)
    assert looks.rows_unit(0.25) == pytest.approx(0.0)


def test_looks_on_the_same_share_of_the_documents_are_on_the_same_part():
    trials = [trial(TrialState.RUNNING, look(1.0, share)) for share in (0.25, 0.5, 0.25, 1.0)]
    numbers = looks.parts([*looks.evidence(trials), trial(TrialState.COMPLETE)]).tolist()
    assert numbers[0] == numbers[2] != numbers[1]
    assert 0 not in numbers[:3]
    assert numbers[3:] == [0, 0]
