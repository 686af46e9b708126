"""When a sweep in which nothing can succeed ends, and which failures wait for a success."""

import pytest

from orchestrator.sweep.failure_policy import BASELINE_FAILED, BASELINE_UNDEFINED, FailurePolicy, undefined_on
from orchestrator.sweep.queue import PendingTrial
from trials.ledger.record import Failure, TrialRecord


@pytest.fixture
def policy() -> FailurePolicy:
    return FailurePolicy(["one", "two"])


def failure(kind: str = "ValueError", message: str = "no luck") -> Failure:
    return Failure(kind=kind, message=message, traceback="")


def ends_after(policy: FailurePolicy, kind: str = "ValueError", slots: int = 1, alike: bool = True) -> int | None:
    """The number of failures in a row that ends the sweep."""
    for number in range(30):
        message = "no luck" if alike else f"{number}"
        if policy.trial_failed(number, failure(kind, message), "record.json", slots) is not None:
            return number + 1
    return None


@pytest.mark.parametrize(("kind", "count"), [("ValueError", 3), ("OutOfMemory", 12), ("NonFiniteLoss", 12)])
def test_failures_before_the_first_success_end_the_sweep(policy, kind, count):
    assert ends_after(policy, kind) == count


def test_sentence_names_the_cause_and_the_record(policy):
    for number in (0, 1):
        assert policy.trial_failed(number, failure(), "record.json", slots=1) is None
    reason = policy.trial_failed(2, failure(message="no\n  luck"), "record.json", slots=1)
    assert reason == "the first 3 trials all failed; the last one with ValueError: no luck (record.json)"


@pytest.mark.parametrize(("slots", "count"), [(1, 6), (3, 6), (8, 16)])
def test_run_of_like_failures_ends_the_sweep(policy, slots, count):
    policy.success()
    assert ends_after(policy, slots=slots) == count


def test_unlike_failures_after_a_success_do_not_end_the_sweep(policy):
    policy.success()
    assert ends_after(policy, alike=False) is None


@pytest.mark.parametrize("kind", ["OutOfMemory", "NonFiniteLoss"])
def test_failures_that_settings_cause_do_not_end_a_sweep_with_a_success(policy, kind):
    policy.success()
    assert ends_after(policy, kind) is None


def test_success_ends_a_run_of_failures(policy):
    policy.success()
    for number in range(5):
        policy.trial_failed(number, failure(), "record.json", slots=1)
    policy.success()
    assert policy.trial_failed(6, failure(), "record.json", slots=1) is None


def test_replicates_of_one_setting_fail_once(policy):
    assert [policy.trial_failed(0, failure(), "record.json", slots=1) for _ in range(9)] == [None] * 9


def test_sweep_ends_with_its_last_usable_baseline(policy):
    assert policy.baseline_failed("one", failure(), "record.json") is None
    assert policy.baseline_undefined("two")
    assert policy.unusable == {"one": BASELINE_FAILED, "two": BASELINE_UNDEFINED}
    reason = policy.baseline_failed("two", failure(), "record.json")
    assert reason == "a baseline failed, and forgetting is measured against it: ValueError: no luck (record.json)"


@pytest.mark.parametrize(
    ("kind", "own_fault"), [("OutOfMemory", True), ("NonFiniteLoss", True), ("ValueError", False), (BASELINE_FAILED, False)]
)
def test_failures_are_held_back_unless_the_setting_caused_them(policy, kind, own_fault):
    trial = PendingTrial(0, {}, [], failure=kind)
    assert policy.hold_back(trial) == own_fault
    assert policy.held_back == 1
    assert policy.release() == [trial]
    assert policy.held_back == 0


def test_rates_of_a_baseline_that_scores_0_are_undefined(spec):
    baseline = TrialRecord(key="k", state="complete", spec=spec.baseline())
    metrics = {"math.drop": None, "math.forgetting": None, "commonsense.forgetting": 0.0}
    assert undefined_on(baseline, metrics, ["math.drop", "commonsense.forgetting"]) is None
    reason = undefined_on(baseline, metrics, ["math.forgetting", "math.forgetting"])
    assert reason is not None
    assert reason.startswith("math.forgetting: undefined, since micro scores 0 on math before any training (baseline k)")
    assert reason.endswith("use math.drop or math.gold_bpb_delta")


def test_adjusted_changes_of_a_baseline_without_numbers_of_choices_are_undefined(spec):
    baseline = TrialRecord(key="k", state="complete", spec=spec.baseline())
    metrics = {"math.lost": 0.1, "knowledge.lost_adjusted": -0.1}
    assert undefined_on(baseline, metrics, ["math.lost", "knowledge.lost_adjusted"]) is None
    reason = undefined_on(baseline, metrics, ["math.won_adjusted", "knowledge.lost_adjusted"])
    assert reason is not None
    assert reason.startswith("math.won_adjusted: undefined, since a document of baseline k has no known number of choices")


def test_suite_without_answers_is_not_said_to_score_0(spec):
    baseline = TrialRecord(key="k", state="complete", spec=spec.baseline())
    metrics = {"commonsense.forgetting": 0.0, "math.forgetting": 0.0}
    reason = undefined_on(baseline, metrics, ["commonsense+math.worst_forgetting"])
    assert reason is not None and reason.endswith("since baseline k has no answers to the documents of some role")
    scores_0 = undefined_on(baseline, metrics | {"math.forgetting": None}, ["commonsense+math.worst_forgetting"])
    assert scores_0 is not None and "scores 0 on math before" in scores_0
