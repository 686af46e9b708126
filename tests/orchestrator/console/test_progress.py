"""Progress: one count, one unit, and a time left that is never 0 while something runs."""

import io

import pytest
from rich.console import Console

from orchestrator.config.model import SweepConfig
from orchestrator.console import progress as progress_module
from orchestrator.console.progress import Progress, settings, to_run
from orchestrator.console.time_left import Timings
from orchestrator.sweep.controller import SweepController
from tests.factories.sweep_state import complete
from trials.ledger.trial_progress import TrialProgress


@pytest.fixture
def shown(parts, tmp_path):
    """Builds a sweep of so many seeds a trial, and the Progress that watches it without a terminal."""

    def make(replicates: int = 1) -> tuple[SweepController, Progress]:
        parts["search"]["replicates"] = replicates
        progress = Progress(Console(file=io.StringIO(), width=200))
        progress.sweep = SweepController.open(SweepConfig.model_validate(parts), tmp_path / str(replicates), progress)
        return progress.sweep, progress

    return make


def lines(progress: Progress) -> list[str]:
    return progress.console.file.getvalue().splitlines()


def ended(progress: Progress) -> list[str]:
    """The lines of finished trials."""
    return [line for line in lines(progress) if line.startswith("[")]


def test_trial_of_three_seeds_counts_once_and_count_never_falls(shown):
    sweep, progress = shown(replicates=3)
    while (job := sweep.next_job()) is not None:
        complete(sweep, job)
    counts = [line.split("]")[0].removeprefix("[") for line in ended(progress)]
    assert counts == ["0/2", "0/2", "0/2", "1/2", "1/2", "1/2", "2/2"]


def test_runs_to_go_are_explained_by_trials_and_baselines(shown):
    assert to_run(shown(replicates=3)[0]) == "7 to run (2 trials of 3 seeds, 1 baseline), "
    sweep, _ = shown()
    assert to_run(sweep) == "3 to run (2 trials, 1 baseline), "
    complete(sweep, sweep.next_job())
    complete(sweep, sweep.next_job())
    assert to_run(sweep) == "1 to run (1 trial), "


def test_lines_have_the_units_of_the_report(shown):
    sweep, progress = shown()
    complete(sweep, sweep.next_job())
    complete(sweep, sweep.next_job())
    assert "commonsense gain" in ended(progress)[1]
    assert " points" in ended(progress)[1]
    assert " %" in ended(progress)[0]


@pytest.fixture
def clock(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(progress_module.time, "monotonic", lambda: now[0])
    return now


def test_time_left_is_positive_while_a_trial_runs(shown, clock):
    sweep, progress = shown()
    job = sweep.next_job()
    assert progress.left() == "time left not known yet"
    progress.timings.add({"train": 10.0}, baseline=False)
    assert progress.left() == "time left not known yet"  # a baseline trains nothing: nobody knows how long it takes
    progress.timings.add({"evaluate.math": 4.0}, baseline=True)
    assert progress.left() == "about 24 s left"  # a baseline that has just begun, and two trials
    clock[0] += 60.0  # overdue: the others still take their time
    assert progress.left() == "about 20 s left"
    complete(sweep, job)
    complete(sweep, sweep.next_job())
    sweep.next_job()
    clock[0] += 60.0
    assert progress.left() == "the last trials take longer than those before"


def test_time_left_of_a_sweep_that_stops_is_that_of_its_running_trials(shown, clock):
    sweep, progress = shown()
    complete(sweep, sweep.next_job())
    sweep.next_job()
    progress.timings = Timings()
    progress.timings.add({"train": 100.0}, baseline=False)
    clock[0] += 10.0
    assert progress.left() == "about 3 min 10 s left"  # this one, and one that waits
    sweep.stop()
    assert progress.left() == "about 1 min 30 s left"


def test_line_tells_of_each_start_and_the_time_left_after_each_end(shown):
    sweep, progress = shown()
    while (job := sweep.next_job()) is not None:
        complete(sweep, job)
    found = [line.split("  ") for line in lines(progress)]
    assert [line[0] for line in found] == ["baseline starts", "[0/2]", "trial 0 starts", "[1/2]", "trial 1 starts", "[2/2]"]
    assert found[2] == ["trial 0 starts", "rank 2"]  # a baseline says nothing about a trial
    assert found[3][-1] == "about 1 s left"
    assert found[4] == ["trial 1 starts", "about 1 s", "rank 4"]
    assert "left" not in found[5][-1]


def test_silent_minute_ends_with_a_line_about_the_running_trials(shown, clock):
    sweep, progress = shown()
    complete(sweep, sweep.next_job())
    job = sweep.next_job()
    before = len(lines(progress))
    for second in range(181):
        clock[0] += 1.0
        now = TrialProgress(key=job.spec.key, phase="train", step=second, steps=600, loss=1.5, left=600.0)
        sweep.report_progress(job.spec.key, now)
    said = lines(progress)[before:]
    assert said[0] == "trial 0: train 59/600, loss 1.500, 10 min 00 s left"
    assert len(said) == 3


def test_table_shows_what_a_running_trial_does(shown):
    sweep, progress = shown()
    job = sweep.next_job()
    sweep.report_progress(job.spec.key, TrialProgress(key=job.spec.key, phase="train", step=3, steps=9, loss=1.5))
    console = Console(file=io.StringIO(), width=200)
    console.print(progress._table())
    assert "train 3/9, loss 1.500" in console.file.getvalue()
    complete(sweep, job)
    console = Console(file=io.StringIO(), width=200)
    console.print(progress._table())
    assert "train 3/9" not in console.file.getvalue()


def test_runs_of_several_seeds_are_numbered(shown):
    sweep, progress = shown(replicates=2)
    while (job := sweep.next_job()) is not None:
        complete(sweep, job)
    named = [line.split("  ")[1] for line in ended(progress)]
    assert named == ["baseline", *(f"trial {trial}, run {run} of 2" for trial in (0, 1) for run in (1, 2))]


def test_setting_is_written_as_in_the_report():
    assert settings({"train.learning_rate": 1000.0, "lora.dropout": 0.05, "lora.rank": 8}) == (
        "learning_rate 1000, dropout 0.05, rank 8"
    )
    assert settings({"train.learning_rate": 0.0002}) == "learning_rate 2e-4"
