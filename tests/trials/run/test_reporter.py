"""The reporter measures rates, writes what others read, and never ends a trial."""

import threading

import pytest

from trials.ledger import storage, trial_progress
from trials.ledger.record import Ledger
from trials.run import trial_log
from trials.run.reporter import Reporter


@pytest.fixture
def clock():
    return [100.0]


@pytest.fixture
def reporter(tmp_path, clock):
    return Reporter("abc", Ledger(tmp_path).folder("abc"), clock=lambda: clock[0])


def test_rate_and_time_left_come_from_measured_steps(reporter, clock):
    reporter.phase("train")
    reporter.training([100, 200, 300, 450, 600, 700], 0)
    assert (reporter.progress().left, reporter.progress().tokens_per_second) == (None, None)
    for step in (1, 2, 3, 4):
        clock[0] += 2.0
        reporter.step(step, 3.0 - step / 10)
    found = reporter.progress()
    assert (found.step, found.steps, found.loss) == (4, 6, 2.6)
    assert (found.left, found.tokens_per_second, found.seconds) == (4.0, 56.2, 8.0)
    assert found.losses == [(1, 2.9), (2, 2.8), (3, 2.7), (4, 2.6)]
    clock[0] += 7.0  # a step that takes longer than those before: 15 s for 5 steps at the best
    assert reporter.progress().left == 3.0


def test_resumed_training_counts_its_own_steps_for_the_rate(reporter, clock):
    reporter.phase("train")
    reporter.training([100] * 10, 6)
    clock[0] += 3.0
    reporter.step(7, 1.0)
    assert (reporter.progress().step, reporter.progress().left) == (7, 9.0)


def test_documents_are_counted_and_start_over_when_memory_ran_out(reporter, clock):
    reporter.phase("evaluate.math")
    reporter.documents(0, 40)
    clock[0] += 5.0
    reporter.documents(10, 40)
    assert (reporter.progress().documents, reporter.progress().of_documents, reporter.progress().left) == (10, 40, 15.0)
    reporter.documents(0, 40)
    assert reporter.progress().left is None


def test_no_time_left_is_named_where_the_last_documents_are_overdue_or_answered(reporter, clock):
    reporter.phase("evaluate.math")
    for documents in (0, 16, 32):
        reporter.documents(documents, 40)
        clock[0] += 8.0
    clock[0] -= 6.0
    assert reporter.progress().left == 2.0
    clock[0] += 60.0
    assert reporter.progress().left is None
    reporter.documents(40, 40)  # what follows the last answer may take a minute
    assert reporter.progress().left is None


def test_first_responses_of_a_batch_are_no_rate(reporter, clock):
    reporter.phase("evaluate.math")
    reporter.documents(0, 40)
    clock[0] += 200.0
    reporter.documents(2, 40)
    assert reporter.progress().left is None
    clock[0] += 10.0
    reporter.documents(6, 40)
    assert reporter.progress().left == 85.0


def test_progress_names_the_trials_of_its_pass(reporter):
    reporter.phase("train")
    reporter.training([1, 2], 0, together=3)
    assert reporter.progress().together == 3
    reporter.phase("drift")
    assert reporter.progress().together is None


def test_seconds_of_evaluations_are_added_up_where_roles_take_turns(reporter):
    reporter.evaluated(3.0)
    reporter.phase("evaluate.math")
    assert reporter.progress().evaluated is None
    reporter.takes_turns()
    reporter.evaluated(3.0)
    reporter.evaluated(2.0)
    reporter.phase("evaluate.math")
    assert reporter.progress().evaluated == 5.0


def test_new_phase_forgets_the_numbers_of_the_last(reporter):
    reporter.phase("train")
    reporter.training([1, 2], 0)
    reporter.step(1, 2.0)
    reporter.phase("drift")
    found = reporter.progress()
    assert (found.phase, found.step, found.loss, found.losses) == ("drift", None, None, [])


def test_progress_is_written_while_the_trial_runs_and_removed_at_its_end(tmp_path):
    ledger, ticked = Ledger(tmp_path), threading.Event()
    reporter = Reporter("abc", ledger.folder("abc"), observe=lambda progress: progress.step and ticked.set())
    reporter._interval = 0.0
    with reporter.running():
        reporter.phase("train")
        reporter.training([1, 2], 0)
        reporter.step(1, 2.0)
        assert ticked.wait(30)
        while (found := trial_progress.read(ledger, "abc")) is None or found.step is None:
            pass
        assert (found.step, found.loss) == (1, 2.0)
    assert storage.names(ledger.folder("abc")) == [trial_log.FILE]
    assert trial_log.read(ledger.folder("abc")).rstrip().endswith(trial_log.END)


def test_nothing_is_written_or_removed_once_another_process_runs_the_trial(place):
    ledger, mine = Ledger(place), [True]
    reporter = Reporter("abc", ledger.folder("abc"), lambda: mine[0])
    with reporter.running():
        reporter.log.publish()
        before = {name: storage.read_bytes(ledger.folder("abc") / name) for name in storage.names(ledger.folder("abc"))}
        mine[0] = False
        reporter.phase("train")
        reporter.note("from the one that lost its lease")
        reporter.phase_ended("train", 1.0)
    assert set(before) == {trial_progress.FILE, trial_log.FILE}
    assert {name: storage.read_bytes(ledger.folder("abc") / name) for name in before} == before


def test_progress_of_a_killed_attempt_is_replaced_when_the_next_one_begins(tmp_path):
    ledger = Ledger(tmp_path)
    trial_progress.write(ledger.folder("abc"), trial_progress.TrialProgress(key="abc", phase="train", step=400, steps=600))
    with Reporter("abc", ledger.folder("abc")).running():
        found = trial_progress.read(ledger, "abc")
    assert (found.phase, found.step) == ("start", None)


def test_unwritable_storage_is_reported_once_and_ends_nothing(tmp_path, capsys):
    (tmp_path / "ledger").mkdir()
    (tmp_path / "ledger" / "abc").write_text("a file where the folder should be")
    reporter = Reporter("abc", tmp_path / "ledger" / "abc")
    with reporter.running():
        reporter.phase("load")
        reporter._guard(lambda: reporter._write(reporter.progress()))
        reporter._guard(lambda: reporter._write(reporter.progress()))
        reporter.phase_ended("load", 1.0)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"warning: {tmp_path}/ledger/abc: progress or log cannot be written (")
    assert reporter.lost_writes >= 3


def test_failing_observer_ends_nothing(tmp_path, capsys):
    def observe(progress):
        raise BrokenPipeError("nobody reads")

    reporter = Reporter("abc", tmp_path / "ledger" / "abc", observe=observe)
    with reporter.running():
        reporter.phase("load")
        reporter.phase("mix")
    assert capsys.readouterr().err.count("nobody reads") == 1
