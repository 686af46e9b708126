"""The time left comes from finished trials of the same kind, and is never 0 while something runs."""

from orchestrator.console.time_left import UNKNOWN, Running, Timings
from trials.ledger.trial_progress import TrialProgress


def timings(*, baseline: bool = False) -> Timings:
    found = Timings()
    found.add({"load": 2.0, "train": 50.0, "evaluate.math": 40.0}, baseline=baseline)
    found.add({"load": 0.0, "train": 70.0, "evaluate.math": 38.0}, baseline=baseline)
    return found


def now(phase: str, **values) -> TrialProgress:
    return TrialProgress(key="k", phase=phase, **values)


def test_nothing_is_known_before_a_trial_has_finished():
    empty = Timings()
    assert empty.mean(baseline=False) is None
    assert empty.left(Running(False, 10.0, now("train", step=1, steps=2, left=5.0))) is None
    assert empty.of_sweep([Running(False, 10.0)], {False: 3}, 1) == UNKNOWN
    assert empty.of_sweep([], {}, 1) == UNKNOWN


def test_baseline_says_nothing_about_trials_that_train():
    only_baseline = timings(baseline=True)
    assert only_baseline.of_sweep([], {True: 0, False: 3}, 1) == UNKNOWN
    assert only_baseline.of_sweep([], {True: 1, False: 0}, 1) == "about 1 min 40 s left"


def test_counted_seconds_stand_in_and_say_so_until_a_phase_is_measured():
    found = Timings()
    found.counted = {True: {"evaluate.math": 20.0}, False: {"train": 30.0, "evaluate.math": 20.0}}
    baseline = Running(True, 5.0, now("evaluate.math", left=60.0, seconds=5.0))
    assert found.of_sweep([baseline], {True: 0, False: 1}, 1) == "about 1 min 50 s left (counted, not measured)"
    assert found.of_sweep([Running(True, 500.0)], {}, 1) == UNKNOWN
    found.add({"load": 1.0, "evaluate.math": 40.0}, baseline=True)
    # the baseline took twice as long as counted, so a training may too
    assert found.of_sweep([], {True: 0, False: 2}, 1) == "about 3 min 20 s left (counted, not measured)"
    training = now("train", seconds=30.0, left=60.0)
    found.watch(training)
    assert found.of_sweep([Running(False, 30.0, training)], {True: 0, False: 1}, 1) == "about 3 min 50 s left"


def test_a_phase_that_is_counted_wrong_ends_all_counting_until_phases_are_measured():
    found = Timings()
    found.counted = {True: {"load": 1.0, "evaluate.math": 5.0}, False: {"train": 30.0, "evaluate.math": 5.0}}
    found.watch(now("load", seconds=9.0))  # too short to say anything
    assert found.of_sweep([], {True: 0, False: 1}, 1) == "about 35 s left (counted, not measured)"
    slow = now("evaluate.math", seconds=200.0)
    found.watch(slow)
    assert found.of_sweep([Running(True, 200.0, slow)], {True: 0, False: 1}, 1) == UNKNOWN
    found.add({"evaluate.math": 300.0}, baseline=True)
    assert found.of_sweep([], {True: 0, False: 1}, 1) == UNKNOWN
    found.watch(now("train", seconds=30.0, left=60.0))
    assert found.of_sweep([], {True: 0, False: 1}, 1) == "about 6 min 30 s left"


def test_running_training_and_baseline_suffice_without_a_count():
    found = timings(baseline=True)
    found.watch(now("train", seconds=10.0, left=90.0, together=2))
    assert found.of_sweep([], {True: 0, False: 1}, 1) == "about 1 min 29 s left"


def test_running_trial_takes_what_its_phase_says_and_the_mean_of_later_phases():
    found = timings()
    assert found.left(Running(False, 30.0)) == 70.0
    assert found.left(Running(False, 30.0, now("train", step=1, steps=4, left=90.0))) == 90.0 + 39.0
    assert found.left(Running(False, 30.0, now("load", seconds=0.5))) == 0.5 + 60.0 + 39.0
    assert found.left(Running(False, 30.0, now("evaluate.math", seconds=50.0))) == 0.0


def test_sweep_takes_as_long_as_its_slots_need_and_at_least_as_its_longest_trial():
    found = timings()
    running = [Running(False, 0.0, now("evaluate.math", left=10.0, seconds=1.0)), Running(False, 0.0)]
    assert found.of_sweep(running, {False: 3}, 2) == "about 3 min 25 s left"
    assert found.of_sweep(running, {False: 0}, 2) == "about 1 min 40 s left"
    assert found.of_sweep([Running(False, 500.0)], {False: 0}, 1) == "the last trials take longer than those before"
    assert found.of_sweep([Running(False, 500.0)], {False: 1}, 1) == "about 1 min 40 s left"
    assert found.of_sweep([Running(False, 0.0, now("evaluate.math", left=0.2, seconds=1.0))], {}, 1) == "about 1 s left"


def test_phases_have_one_order_whichever_trial_ends_first():
    found = Timings()
    found.add({"load": 1.0, "drift": 2.0, "evaluate.b": 60.0, "evaluate.a": 40.0}, baseline=False)  # derived from another
    found.add({"load": 1.0, "mix": 1.0, "train": 100.0, "drift": 2.0, "evaluate.b": 60.0, "evaluate.a": 40.0}, baseline=False)
    assert found.left(Running(False, 52.0, now("train", seconds=50.0, left=50.0))) == 50.0 + 2.0 + 100.0
    assert found.left(Running(False, 152.0, now("evaluate.b", seconds=50.0, left=10.0))) == 10.0 + 40.0


def test_roles_that_take_turns_have_their_time_together():
    found = Timings()
    found.add({"train": 10.0, "evaluate.a": 100.0, "evaluate.b": 100.0}, baseline=False)
    assert found.left(Running(False, 33.0, now("evaluate.a", seconds=23.0, left=2.0, evaluated=0.0))) == 177.0
    assert found.left(Running(False, 60.0, now("evaluate.b", seconds=23.0, left=77.0, evaluated=25.0))) == 152.0
    assert found.left(Running(False, 250.0, now("evaluate.b", seconds=23.0, left=9.0, evaluated=200.0))) == 9.0


def test_trials_of_one_pass_share_its_time():
    found = Timings()
    for _ in range(4):
        found.add({"load": 1.0, "train": 25.0, "evaluate.a": 10.0}, baseline=False)  # a fourth of a pass of 100 s
    four = [Running(False, 3.0, now("train", seconds=1.0, left=99.0, together=4))] * 4
    assert found.left(four[0]) == 99.0 + 10.0
    assert found.of_sweep(four, {True: 0, False: 0}, 1) == "about 2 min 19 s left"
    assert found.left(Running(False, 3.0, now("train", seconds=1.0, together=4))) == 99.0 + 10.0
