"""Progress: one count, one unit, and a time left that is never 0 while something runs."""

import io

import pytest
from rich.console import Console

from orchestrator.config.model import SweepConfig
from orchestrator.console import progress as progress_module
from orchestrator.console.progress import Progress, settings, to_run
from orchestrator.sweep.controller import SweepController
from tests.factories.sweep_state import complete


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


def test_trial_of_three_seeds_counts_once_and_count_never_falls(shown):
    sweep, progress = shown(replicates=3)
    while (job := sweep.next_job()) is not None:
        complete(sweep, job)
    counts = [line.split("]")[0].removeprefix("[") for line in lines(progress)]
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
    assert "commonsense gain" in lines(progress)[1]
    assert " points" in lines(progress)[1]
    assert " %" in lines(progress)[0]


def test_time_left_is_positive_while_a_trial_runs(shown, monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(progress_module.time, "monotonic", lambda: now[0])
    sweep, progress = shown()
    assert progress.left() == "time left not known yet"
    job = sweep.next_job()
    progress._durations.append(10.0)
    assert progress.left() == "about 30 s left"  # a baseline that has just begun, and two trials
    now[0] += 9.0
    assert progress.left() == "about 21 s left"
    now[0] += 60.0  # overdue: the others still take their time
    assert progress.left() == "about 20 s left"
    complete(sweep, job)
    complete(sweep, sweep.next_job())
    sweep.next_job()
    progress._durations[:] = [10.0]
    now[0] += 60.0
    assert progress.left() == "the last trials take longer than those before"


def test_runs_of_several_seeds_are_numbered(shown):
    sweep, progress = shown(replicates=2)
    while (job := sweep.next_job()) is not None:
        complete(sweep, job)
    named = [line.split("  ")[1] for line in lines(progress)]
    assert named == ["baseline", *(f"trial {trial}, run {run} of 2" for trial in (0, 1) for run in (1, 2))]


def test_setting_is_written_as_in_the_report():
    assert settings({"train.learning_rate": 1000.0, "lora.dropout": 0.05, "lora.rank": 8}) == (
        "learning_rate 1000, dropout 0.05, rank 8"
    )
    assert settings({"train.learning_rate": 0.0002}) == "learning_rate 2e-4"
