"""A plan names each role's task, where it comes from, and how many documents it has."""

import pytest

from orchestrator.planning.benchmarks import benchmarks
from tests.factories.own_tasks import CHOICES, DISTANCE, SHOP, role
from tests.factories.specs import small_spec
from trials.errors import InputError
from trials.hub.hub import Hub
from trials.spec import Evaluation
from trials.tasks.tasks import Tasks


def test_every_kind_of_task_is_described():
    evaluations = {
        "own": role(CHOICES),
        "near": role({**DISTANCE, "documents": 5}),
        "bundled": Evaluation.model_validate("micro_gsm"),
        "stock": Evaluation.model_validate("gsm8k"),
        "unknown": Evaluation(task="asdiv", metric="acc"),
    }
    found = benchmarks([small_spec().model_copy(update={"eval": evaluations})], Tasks(Hub()), halved=True)
    shown = {name: (one.task, one.origin, one.better, one.documents, one.of) for name, one in found.items()}
    assert shown == {
        "own": (("shop_choices",), str(SHOP), "higher", 60, 60),
        "near": (("shop_distance",), str(SHOP), "lower", 5, 40),
        "bundled": (("micro_gsm",), "slimsweep", "higher", 400, 400),
        "stock": (("gsm8k",), "lm-eval", None, 1319, 1319),
        "unknown": (("asdiv",), "lm-eval", None, None, None),
    }


def test_halves_are_counted_of_the_documents_that_a_trial_answers():
    spec = small_spec().model_copy(update={"eval": {"own": role(CHOICES), "near": role({**DISTANCE, "documents": 5})}})
    found = benchmarks([spec], Tasks(Hub()), halved=True)
    assert {name: sum(one.halves.values()) for name, one in found.items()} == {"own": 60, "near": 5}
    assert all(found["own"].halves.values())
    assert benchmarks([spec], Tasks(Hub()), halved=False)["own"].halves is None


def test_more_documents_than_a_known_benchmark_has_are_refused():
    evaluations = {"stock": Evaluation.model_validate({"preset": "gsm8k", "documents": 1320})}
    with pytest.raises(InputError, match=r"^eval\.stock\.documents: 1320 requested, gsm8k has 1319$"):
        benchmarks([small_spec().model_copy(update={"eval": evaluations})], Tasks(Hub()), halved=True)
