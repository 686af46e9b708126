"""Sizes of own tasks are those of their documents."""

import pytest

from orchestrator.planning.task_lengths import own_lengths
from tests.factories.own_tasks import CHOICES, DISTANCE, NOTES, role
from trials.hub.hub import Hub
from trials.spec import Evaluation
from trials.tasks.tasks import Tasks


def words(text: str) -> int:
    return len(text.split())


def test_documents_lengths_and_limit_are_those_of_the_task():
    (found,) = own_lengths(role(DISTANCE), Tasks(Hub()), words)
    assert (found.documents, found.shots, found.requests, found.generated) == (40, 2, 1, 48)
    assert 5 < found.context <= found.longest
    assert found.context < found.shot < 60
    assert [one.documents for one in own_lengths(role({**DISTANCE, "documents": 10}), Tasks(Hub()), words)] == [10]


@pytest.mark.parametrize(("fields", "requests", "ended"), [(CHOICES, 4, True), (NOTES, 1, True)])
def test_scored_endings_are_counted(fields, requests, ended):
    found = own_lengths(role(fields), Tasks(Hub()), words)
    assert max(one.requests for one in found) == requests
    assert all((one.ending > 0) is ended and one.generated == 0 for one in found)


def test_task_without_a_folder_is_left_to_typical_lengths():
    assert own_lengths(Evaluation.model_validate("micro_gsm"), Tasks(Hub()), words) is None
