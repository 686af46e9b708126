"""Which job comes next, and which keys run elsewhere."""

import pytest

from orchestrator.sweep.queue import Job, JobQueue, PendingTrial
from trials.spec import TrialSpec


@pytest.fixture
def queue() -> JobQueue:
    return JobQueue()


@pytest.fixture
def specs(spec) -> list[TrialSpec]:
    return [spec.model_copy(update={"train": spec.train.model_copy(update={"seed": seed})}) for seed in range(3)]


def add(queue: JobQueue, number: int, specs: list[TrialSpec]) -> list[Job]:
    trial = PendingTrial(number, {}, specs)
    queue.pending[number] = trial
    queue.add(trial.jobs())
    return trial.jobs()


def test_jobs_come_in_their_order_and_a_returned_one_first(queue, specs):
    jobs = add(queue, 0, specs)
    first = queue.pop()
    assert first == jobs[0]
    queue.start(first)
    queue.give_back(first.spec.key)
    assert [queue.pop() for _ in range(4)] == [*jobs, None]


def test_jobs_of_a_failed_trial_are_dropped(queue, specs):
    add(queue, 0, specs[:2])
    other = add(queue, 1, specs[2:])
    del queue.pending[0]
    assert queue.pop() == other[0]
    assert queue.pop() is None


def test_baselines_belong_to_no_trial(queue, spec):
    baseline = Job(spec.baseline(), None)
    queue.add([baseline])
    assert queue.baselines == 1
    assert queue.pop() == baseline


def test_key_that_runs_holds_further_jobs_of_it(queue, spec):
    first, second = add(queue, 0, [spec])[0], add(queue, 1, [spec])[0]
    queue.start(queue.pop())
    assert queue.pop() is None
    assert (len(queue), queue.others_run_some) == (2, False)
    assert queue.end(spec.key) == first
    assert queue.take_held(spec.key) == [second]
    assert len(queue) == 0


def test_key_that_another_process_runs_is_others_work(queue, specs):
    mine, theirs = add(queue, 0, specs[:2])
    queue.start(queue.pop())
    queue.hold(queue.pop())
    assert queue.others_run_some
    assert queue.take_held_elsewhere() == [theirs]
    assert not queue.others_run_some
    assert queue.running == {mine.spec.key: mine}


def test_lost_record_is_queued_unless_its_key_runs_anyway(queue, specs):
    queued, running, lost = (Job(spec, None) for spec in specs)
    queue.start(running)
    queue.add([queued])
    queue.add_lost([queued, running, lost])
    assert [queue.pop(), queue.pop(), queue.pop()] == [queued, lost, None]


def test_queue_is_idle_once_every_outcome_is_there(queue, spec):
    assert queue.idle
    add(queue, 0, [spec])
    queue.start(queue.pop())
    queue.end(spec.key)
    assert not queue.idle
    assert not queue.has_queued
    del queue.pending[0]
    assert queue.idle
