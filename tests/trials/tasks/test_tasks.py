"""lm-eval's tasks: built once, checked against a role's settings."""

import pytest

from trials.errors import InputError
from trials.hub.hub import Hub
from trials.spec import Evaluation
from trials.tasks.tasks import Tasks, check, check_room, measured, same_split


@pytest.fixture(scope="module")
def tasks() -> Tasks:
    return Tasks(Hub())


def evaluation(**fields) -> Evaluation:
    return Evaluation.model_validate({"task": "micro_gsm", "metric": "exact_match", "filter": "strict-match", **fields})


def test_bundled_task_is_at_hand_with_its_data(tasks):
    assert tasks.at_hand("micro_gsm")
    assert tasks.datasets("micro_gsm") == {"micro/gsm8k"}


def test_task_is_built_once(tasks):
    (one,), (other,) = (tasks.build(evaluation()).values() for _ in range(2))
    assert one is other
    assert "exact_match,strict-match" in measured(one)


@pytest.mark.parametrize(
    ("fields", "refusal"),
    [
        ({"metric": "acc"}, "eval.math: task micro_gsm measures exact_match,strict-match"),
        ({"documents": 9_999}, "eval.math.documents: 9999 requested, micro_gsm has"),
        ({"shots": 100_000}, "eval.math.shots: 100000 requested, task micro_gsm has"),
    ],
)
def test_setting_that_a_task_cannot_have_is_one_line(tasks, fields, refusal):
    with pytest.raises(InputError) as caught:
        check("math", evaluation(**fields), tasks)
    assert refusal in str(caught.value)


def test_response_that_fills_the_model_leaves_no_room(tasks):
    check_room("math", evaluation(), tasks, longest=1024)
    with pytest.raises(InputError, match="but the base takes 16, the prompt included"):
        check_room("math", evaluation(), tasks, longest=16)


def test_training_split_that_is_evaluated_is_found(tasks):
    assert same_split(evaluation(), "micro/gsm8k", "main", "test", tasks) == "micro_gsm"
    assert same_split(evaluation(), "micro/gsm8k", None, "train+test[:10]", tasks) == "micro_gsm"
    assert same_split(evaluation(), "micro/gsm8k", "main", "train", tasks) is None


def test_documents_of_a_sample_are_those_of_lm_eval(tasks):
    (task,) = tasks.build(evaluation()).values()
    sampled = [doc for _, doc in task.doc_iterator(samples=[7, 3])]
    assert sampled == [task.eval_docs[3], task.eval_docs[7]]
