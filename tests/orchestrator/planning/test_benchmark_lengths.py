"""Sizes of benchmarks follow the evaluation."""

from orchestrator.planning.benchmark_lengths import lengths, unknown_tasks
from trials.spec import Evaluation


def test_documents_are_those_that_the_role_takes():
    whole, part = (Evaluation(task="gsm8k", metric="exact_match", documents=count) for count in (None, 100))
    assert [task.documents for task in lengths(whole)] == [1319]
    assert [task.documents for task in lengths(part)] == [100]


def test_unknown_task_has_typical_lengths():
    generated, choice = (Evaluation(task="mine", metric=metric) for metric in ("exact_match", "acc"))
    assert unknown_tasks(choice) == ["mine"]
    assert lengths(generated)[0].generated > 0 == lengths(choice)[0].generated
