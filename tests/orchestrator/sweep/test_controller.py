"""The state of a sweep: nothing lost, nothing run twice, the study told everything. Records are written by hand."""

import contextlib
import itertools
import json
import sqlite3
from pathlib import Path

import pytest

from analysis.results.sweep import load
from orchestrator.config.model import SweepConfig
from orchestrator.errors import SweepFailed
from orchestrator.search import study_storage
from orchestrator.sweep.controller import SweepController
from tests.factories.sweep_state import complete, fail, fail_next, leave, run_out
from trials.errors import InputError
from trials.spec import TrialSpec


@pytest.fixture
def config(parts) -> SweepConfig:
    parts["space"]["lora.rank"]["choices"] = [2, 4, 8]
    return SweepConfig.model_validate(parts)


def states(sweep: SweepController) -> list[str]:
    return [trial.state for trial in sweep.study.trials()]


def test_the_baseline_comes_first_and_every_grid_point_once(config, tmp_path):
    jobs = run_out(SweepController.open(config, tmp_path))
    assert jobs[0].number is None
    assert jobs[0].spec.is_baseline
    assert [job.settings["lora.rank"] for job in jobs[1:]] == [2, 4, 8]


def test_objectives_and_constraints_are_told_against_the_baseline(config, tmp_path):
    sweep = SweepController.open(config, tmp_path)
    complete(sweep, sweep.next_job(), commonsense=0.5, math=0.8)
    complete(sweep, sweep.next_job(), commonsense=0.7, math=0.2)
    trial = sweep.study.trials()[0]
    assert trial.values == pytest.approx([0.2, 0.6])
    assert list(trial.constraints.values()) == pytest.approx([0.1])


def test_a_trial_that_ends_before_its_baseline_is_told_when_the_baseline_is_there(config, tmp_path):
    sweep = SweepController.open(config, tmp_path)
    baseline, trial = sweep.next_job(), sweep.next_job()
    complete(sweep, trial)
    assert states(sweep)[0] == "running"
    complete(sweep, baseline)
    assert states(sweep)[0] == "complete"


def test_a_sweep_that_was_cut_off_keeps_its_trials_and_runs_none_twice(config, tmp_path):
    first = SweepController.open(config, tmp_path)
    complete(first, first.next_job())
    complete(first, first.next_job())
    cut_off, finished_unseen = first.next_job(), first.next_job()
    leave(first, finished_unseen)  # the record was written, the study never told
    del first
    again = SweepController.open(config, tmp_path)
    jobs = run_out(again)
    assert [job.spec.key for job in jobs] == [cut_off.spec.key]
    assert states(again) == ["complete"] * 3
    assert SweepController.open(config, tmp_path).state.unfinished == 0


def test_what_another_sweep_has_done_is_told_and_not_run(config, tmp_path):
    run_out(SweepController.open(config, tmp_path))
    other = SweepController.open(config.model_copy(update={"name": "other"}), tmp_path)
    assert other.next_job() is None
    assert states(other) == ["complete"] * 3


def test_a_discrete_space_is_searched_without_repeats_and_then_the_sweep_is_over(parts, tmp_path):
    parts["search"].update(sampler="random", trials=6)
    sweep = SweepController.open(SweepConfig.model_validate(parts), tmp_path)  # two settings, six trials
    assert len(run_out(sweep)) == 3
    assert sweep.over
    assert states(sweep) == ["complete"] * 2


def test_the_same_setting_asked_twice_at_once_runs_once_and_is_told_twice(parts, tmp_path):
    parts["search"].update(sampler="random", trials=2, first=[{"lora.rank": 2}, {"lora.rank": 2}])
    sweep = SweepController.open(SweepConfig.model_validate(parts), tmp_path)
    jobs = []
    while job := sweep.next_job():
        jobs.append(job)
    assert len(jobs) == 2  # the baseline and one trial
    for job in jobs:
        complete(sweep, job)
    assert states(sweep) == ["complete"] * 2


def test_a_failed_trial_is_told_as_failed_and_the_sweep_goes_on(config, tmp_path):
    sweep = SweepController.open(config, tmp_path)
    complete(sweep, sweep.next_job())
    fail_next(sweep)
    assert len(run_out(sweep)) == 2
    assert states(sweep) == ["failed", "complete", "complete"]
    assert sweep.counts == {"done": 2, "failed": 1, "given up": 0}


def test_a_worker_that_dies_leaves_a_failed_record_with_its_reason(config, tmp_path):
    sweep = SweepController.open(config, tmp_path)
    complete(sweep, sweep.next_job())
    job = sweep.next_job()
    sweep.finish(job.spec.key, "died", "killed")
    record = sweep.ledger.read(job.spec.key)
    assert record.state == "failed"
    assert record.failure.message == "killed"


def test_an_objective_that_is_undefined_is_told_as_failed(parts, tmp_path):
    parts["search"]["objectives"][1]["metric"] = "math.gold_bpb_delta"  # these records have no bits
    sweep = SweepController.open(SweepConfig.model_validate(parts), tmp_path)
    with sweep.going():
        complete(sweep, sweep.next_job(), math=0.0)
        run_out(sweep)
    assert set(states(sweep)) == {"failed"}


def test_a_failed_baseline_or_nothing_but_failures_stops_the_sweep_with_its_cause(config, tmp_path):
    sweep = SweepController.open(config, tmp_path / "a")
    fail_next(sweep)
    assert sweep.next_job() is None
    assert isinstance(sweep.failed, SweepFailed)
    assert "no luck" in str(sweep.failed)
    sweep = SweepController.open(config, tmp_path / "b")
    complete(sweep, sweep.next_job())
    fail_next(sweep, 3)
    assert "trials all failed" in str(sweep.failed)


def test_a_folder_that_holds_another_sweep_is_refused_and_left_alone(config, parts, tmp_path):
    run_out(SweepController.open(config, tmp_path))
    before = (tmp_path / "little" / "sweep.yaml").read_text()
    parts["train"]["epochs"] = 3
    with pytest.raises(InputError, match="with another train"):
        SweepController.open(SweepConfig.model_validate(parts), tmp_path)
    assert (tmp_path / "little" / "sweep.yaml").read_text() == before


def test_a_sweep_in_which_nothing_finished_takes_another_config(config, parts, tmp_path):
    sweep = SweepController.open(config, tmp_path)
    complete(sweep, sweep.next_job())  # the baseline
    fail_next(sweep)
    parts["train"]["epochs"] = 3
    notices: list[str] = []
    again = SweepController.open(SweepConfig.model_validate(parts), tmp_path, notice=notices.append)
    assert len(notices) == 1
    assert "nothing has finished" in notices[0]
    assert "another" in notices[0]
    assert states(again) == []
    assert (tmp_path / "little" / "study.db.before").exists()
    run_out(again)
    assert states(again) == ["complete"] * 3


RATE = [{"metric": "commonsense.gain", "direction": "maximize"}, {"metric": "math.forgetting", "direction": "minimize"}]


@pytest.mark.parametrize("search", [{"objectives": RATE, "constraints": []}, {"constraints": ["math.forgetting <= 0.1"]}])
def test_an_objective_that_a_base_of_score_0_leaves_undefined_ends_the_sweep(parts, tmp_path, search):
    parts["search"].update(search)
    config = SweepConfig.model_validate(parts)
    sweep = SweepController.open(config, tmp_path)
    complete(sweep, sweep.next_job(), math=0.0)
    assert sweep.next_job() is None
    told = str(sweep.failed)
    assert told.startswith("math.forgetting: undefined, since micro scores 0 on math before any training")
    assert told.endswith("use math.drop or math.gold_bpb_delta")
    assert str(SweepController.open(config, tmp_path).failed) == told
    parts["search"].update(objectives=RATE[:1], constraints=[])  # nothing has finished, so the config changes in place
    again = SweepController.open(SweepConfig.model_validate(parts), tmp_path)
    assert again.failed is None
    run_out(again)


def test_a_base_of_score_0_ends_its_own_trials_alone(parts, tmp_path):
    parts["search"].update(objectives=RATE, constraints=[])
    parts["space"]["base.quantization"] = {"type": "categorical", "choices": ["nf4", "none"]}
    notices: list[str] = []
    sweep = SweepController.open(SweepConfig.model_validate(parts), tmp_path, notice=notices.append)
    jobs = [sweep.next_job(), sweep.next_job()]
    complete(sweep, jobs[0], math=0.0)
    complete(sweep, jobs[1], math=0.5)
    assert [notice.rpartition("; ")[2] for notice in notices] == ["no trial runs on this base"]
    ran = run_out(sweep)
    assert {job.spec.base.quantization for job in ran} == {jobs[1].spec.base.quantization}
    assert sweep.failed is None
    assert sweep.over


def test_a_larger_budget_goes_on_where_the_sweep_ended(parts, tmp_path):
    parts["space"]["lora.rank"]["choices"] = [2, 4, 6, 8, 10]
    parts["search"].update(sampler="random", trials=2)
    run_out(SweepController.open(SweepConfig.model_validate(parts), tmp_path))
    parts["search"]["trials"] = 4
    sweep = SweepController.open(SweepConfig.model_validate(parts), tmp_path)
    run_out(sweep)
    assert len(states(sweep)) == 4


def test_a_resumed_seeded_sampler_does_not_repeat_its_first_draws(parts, tmp_path):
    parts["search"].update(sampler="random", trials=1)
    parts["space"] = {"train.learning_rate": {"type": "float", "low": 1e-4, "high": 1e-2, "log": True}}
    run_out(SweepController.open(SweepConfig.model_validate(parts), tmp_path))
    parts["search"]["trials"] = 2
    sweep = SweepController.open(SweepConfig.model_validate(parts), tmp_path)
    run_out(sweep)
    first, second = sweep.study.trials()
    assert first.params != second.params


def test_every_complete_trial_of_a_tpe_search_has_every_constraint(parts, tmp_path):
    parts["search"].update(sampler="tpe", trials=12)
    parts["space"] = {"train.learning_rate": {"type": "float", "low": 1e-4, "high": 1e-2, "log": True}}
    sweep = SweepController.open(SweepConfig.model_validate(parts), tmp_path)
    run_out(sweep)
    assert all(len(trial.constraints) == 1 for trial in sweep.study.trials())


def test_a_corrupt_record_is_set_aside_with_one_line_and_its_trial_runs_again(config, tmp_path):
    sweep = SweepController.open(config, tmp_path)
    run_out(sweep)
    keys = [config.baseline_specs()[0].key, config.spec({"lora.rank": 4}).key]
    for key in keys:
        path: Path = sweep.ledger.folder(key) / "record.json"
        path.write_text(path.read_text()[:100])
    lines: list[str] = []
    again = SweepController.open(config, tmp_path, notice=lines.append)
    assert [job.spec.key for job in run_out(again)] == keys
    assert again.over
    assert states(again) == ["complete"] * 3
    assert len([line for line in lines if "not a whole record" in line and "set aside" in line]) == 2
    assert all((sweep.ledger.folder(key) / "record.json.corrupt").exists() for key in keys)


@pytest.mark.parametrize("damage", [b"", b"not a database, though long enough to look like one" * 40, None])
def test_a_corrupt_study_is_set_aside_and_made_again_from_manifest_and_ledger(config, tmp_path, damage):
    sweep = SweepController.open(config, tmp_path)
    with sweep.going():
        for _ in range(3):
            complete(sweep, sweep.next_job())
    before = [(trial.params, trial.values) for trial in sweep.study.trials()[:2]]
    path = tmp_path / "little" / "study.db"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2] if damage is None else damage)
    lines: list[str] = []
    again = SweepController.open(config, tmp_path, notice=lines.append)
    assert len(run_out(again)) == 1, "nothing that has a record runs again"
    assert [(trial.params, trial.values) for trial in again.study.trials()[:2]] == before
    assert states(again) == ["complete"] * 3
    if damage != b"":  # to sqlite an empty file is a new database
        assert sum("study.db.corrupt" in line for line in lines) == 1
        assert (tmp_path / "little" / "study.db.corrupt").exists()


@pytest.mark.parametrize("then", ["success", "end"])
def test_failures_wait_for_a_success_and_are_told_then_or_at_the_end(parts, tmp_path, then):
    parts["space"]["lora.rank"]["choices"] = [2, 4, 8] if then == "success" else [2, 4]
    sweep = SweepController.open(SweepConfig.model_validate(parts), tmp_path)
    complete(sweep, sweep.next_job())
    with sweep.going():
        fail_next(sweep, 2)
        assert "failed" not in states(sweep)
        assert len(run_out(sweep)) == (then == "success")
        assert states(sweep).count("failed") == (2 if then == "success" else 0)
    assert states(sweep).count("failed") == 2


def test_what_failed_when_everything_failed_runs_again_once_the_cause_is_mended(config, tmp_path):
    sweep = SweepController.open(config, tmp_path)
    complete(sweep, sweep.next_job())
    with sweep.going():
        fail_next(sweep, 3)
    assert sweep.failed
    again = SweepController.open(config, tmp_path)
    assert len(run_out(again)) == 3
    assert states(again) == ["complete"] * 3


def test_a_run_of_like_failures_in_the_middle_stops_the_sweep_but_not_failures_of_settings(parts, tmp_path):
    parts["space"]["lora.rank"]["choices"] = list(range(1, 20))
    for kind, stops in (("RuntimeError", True), ("OutOfMemory", False), ("NonFiniteLoss", False)):
        sweep = SweepController.open(SweepConfig.model_validate(parts), tmp_path / kind)
        complete(sweep, sweep.next_job())
        complete(sweep, sweep.next_job())
        fail_next(sweep, 6, kind)
        assert (sweep.failed is not None) == stops


def test_storage_that_takes_no_more_stops_the_sweep_and_its_trial_runs_on_the_next_start(config, tmp_path):
    sweep = SweepController.open(config, tmp_path)
    complete(sweep, sweep.next_job())
    job = sweep.next_job()
    sweep.finish(job.spec.key, "storage", "runs/ledger: No space left on device")
    assert sweep.next_job() is None
    assert "No space left" in str(sweep.failed)
    assert run_out(SweepController.open(config, tmp_path))[0].spec.key == job.spec.key


def test_a_trial_that_another_process_runs_waits_for_its_record(config, tmp_path):
    sweep = SweepController.open(config, tmp_path, clock=itertools.count(0, 5).__next__)
    complete(sweep, sweep.next_job())
    job = sweep.next_job()
    with sweep.ledger.lease(job.spec.key):  # as another sweep's worker would
        sweep.finish(job.spec.key, "held")
        others = run_out(sweep)
        assert job.spec.key not in [other.spec.key for other in others]
        assert not sweep.over
        leave(sweep, job)
    assert sweep.next_job() is None
    assert sweep.over
    assert states(sweep) == ["complete"] * 3


def test_replicates_run_under_their_own_seeds_and_are_told_as_their_mean(parts, tmp_path):
    parts["search"]["replicates"] = 3
    sweep = SweepController.open(SweepConfig.model_validate(parts), tmp_path)
    complete(sweep, sweep.next_job(), commonsense=0.5, math=0.8)
    with sweep.going():
        for commonsense in (0.6, 0.7, 0.8):
            job = sweep.next_job()
            assert states(sweep) == ["running"]
            complete(sweep, job, commonsense=commonsense, math=0.8)
    assert sweep.study.trials()[0].values == pytest.approx([0.2, 0.0])
    entry = json.loads((tmp_path / "little" / "manifest.json").read_text())["trials"][0]
    assert len({*entry["keys"]}) == 3
    assert {sweep.ledger.read(key).spec.train.seed for key in entry["keys"]} == {0, 1, 2}


def test_a_replicate_that_fails_fails_its_trial_and_the_rest_of_it_is_not_run(parts, tmp_path):
    parts["search"]["replicates"] = 3
    sweep = SweepController.open(SweepConfig.model_validate(parts), tmp_path)
    with sweep.going():
        complete(sweep, sweep.next_job())
        fail_next(sweep)
        jobs = run_out(sweep)
    assert {job.number for job in jobs} == {1}
    assert states(sweep) == ["failed", "complete"]


@pytest.mark.parametrize(
    ("budget", "ran"), [({"gpu_hours": 2.5 / 3600}, 3), ({"hours": 35 / 3600}, 4), ({"trials": 2, "gpu_hours": 1.0}, 2)]
)
def test_whichever_budget_ends_first_ends_the_asking(parts, tmp_path, budget, ran):
    parts["space"] = {"train.learning_rate": {"type": "float", "low": 1e-4, "high": 1e-2, "log": True}}
    parts["search"].update(sampler="random", **budget)
    now = [0.0]
    sweep = SweepController.open(SweepConfig.model_validate(parts), tmp_path, clock=lambda: now[0])
    complete(sweep, sweep.next_job(), seconds=0.0)
    while job := sweep.next_job():
        now[0] += 10
        complete(sweep, job, seconds=1.0)
    assert states(sweep) == ["complete"] * ran
    assert SweepController.open(SweepConfig.model_validate(parts), tmp_path, clock=lambda: now[0]).next_job() is None


def test_events_tell_the_whole_story(config, tmp_path):
    events = []
    sweep = SweepController.open(config, tmp_path, events.append)
    with sweep.going():
        complete(sweep, sweep.next_job(), commonsense=0.5)
        complete(sweep, sweep.next_job(), commonsense=0.7)
        fail_next(sweep)
        run_out(sweep)
    assert [event.event for event in events] == [
        "sweep_started",
        *("trial_started", "trial_finished"),
        *("trial_started", "trial_finished", "front_changed"),
        *("trial_started", "trial_failed"),
        *("trial_started", "trial_finished"),
        "sweep_finished",
    ]
    assert events[4].metrics["commonsense.gain"] == pytest.approx(0.2)
    assert events[-1].reason == "done"


def test_a_point_whose_settings_contradict_each_other_is_never_tried(parts, tmp_path):
    parts["space"] = {
        "train.batch_size": {"type": "categorical", "choices": [8, 12]},
        "train.micro_batch_size": {"type": "categorical", "choices": [4, 8]},
    }
    sweep = SweepController.open(SweepConfig.model_validate(parts), tmp_path)
    assert len(run_out(sweep)) == 4  # the baseline and three of four points
    assert states(sweep) == ["complete"] * 3


def test_a_failure_message_that_looks_like_markup_is_printed_as_it_is(config, tmp_path):
    import io

    from orchestrator.console.progress import Progress
    from orchestrator.console.terminal import Terminal

    progress = Progress(Terminal(file=io.StringIO(), width=200))
    sweep = SweepController.open(config, tmp_path, progress)
    with progress.watching(sweep):
        complete(sweep, sweep.next_job())
        sweep.finish(sweep.next_job().spec.key, "died", "no space in [/tmp/x] for [batch, seq]")
    assert "[/tmp/x] for [batch, seq]" in progress.console.file.getvalue()


CONTINUOUS = {"train.learning_rate": {"type": "float", "low": 1e-4, "high": 1e-2, "log": True}}


def test_gpu_hours_add_up_over_resumes_and_a_lost_study(parts, tmp_path):
    parts["space"] = CONTINUOUS
    parts["search"].update(sampler="random", gpu_hours=100)
    for run in range(1, 6):
        sweep = SweepController.open(SweepConfig.model_validate(parts), tmp_path)
        with sweep.going():
            complete(sweep, sweep.next_job(), seconds=3600)
            sweep.stop()
        assert sweep.spent[0] == pytest.approx(3600 * run)
        if run == 3:
            (tmp_path / "little" / "study.db").unlink()


def test_a_study_lost_twice_loses_no_trial(parts, tmp_path):
    parts["space"] = CONTINUOUS
    parts["search"].update(sampler="tpe", trials=4)
    config = SweepConfig.model_validate(parts)
    with (sweep := SweepController.open(config, tmp_path)).going():
        run_out(sweep)
    for _ in range(2):
        (tmp_path / "little" / "study.db").unlink()
        sweep = SweepController.open(config, tmp_path)  # cut off before it has told anything
        assert len(json.loads((tmp_path / "little" / "manifest.json").read_text())["trials"]) == 4
    assert run_out(sweep) == []
    assert states(sweep) == ["complete"] * 4


def test_a_study_that_knows_less_than_the_manifest_learns_the_rest(parts, tmp_path):
    parts["space"] = CONTINUOUS
    parts["search"].update(sampler="random", trials=4)
    config, study = SweepConfig.model_validate(parts), tmp_path / "little" / "study.db"
    with (sweep := SweepController.open(config, tmp_path)).going():
        for _ in range(2):
            complete(sweep, sweep.next_job())
    old = study.read_bytes()
    with (sweep := SweepController.open(config, tmp_path)).going():
        run_out(sweep)
    study.write_bytes(old)  # another machine's cache, say
    sweep = SweepController.open(config, tmp_path)
    assert run_out(sweep) == []
    assert states(sweep) == ["complete"] * 4


def test_points_to_try_first_survive_a_lost_study(parts, tmp_path):
    parts["space"]["lora.rank"]["choices"] = [2, 4, 8, 16]
    parts["search"].update(sampler="random", trials=4, first=[{"lora.rank": rank} for rank in (16, 8, 2)])
    config = SweepConfig.model_validate(parts)
    with (sweep := SweepController.open(config, tmp_path)).going():
        for _ in range(2):
            complete(sweep, sweep.next_job())
    (tmp_path / "little" / "study.db").unlink()
    assert [job.settings["lora.rank"] for job in run_out(SweepController.open(config, tmp_path))] == [8, 2, 4]


def test_a_record_that_goes_before_its_trial_is_told_is_made_again(parts, tmp_path):
    parts["search"]["replicates"] = 2
    sweep = SweepController.open(SweepConfig.model_validate(parts), tmp_path)
    complete(sweep, sweep.next_job())
    one, two = sweep.next_job(), sweep.next_job()
    complete(sweep, one)
    (sweep.ledger.folder(one.spec.key) / "record.json").write_text("{")
    complete(sweep, two)
    assert sweep.next_job().spec.key == one.spec.key


def test_a_cut_off_line_of_a_journal_is_dropped_with_a_line_and_nothing_else(parts, tmp_path):
    parts["search"].update(study="journal")
    config = SweepConfig.model_validate(parts)
    complete(sweep := SweepController.open(config, tmp_path), sweep.next_job())
    sweep.study.drivers.leave()
    path = tmp_path / "little" / "study.journal"
    path.write_bytes(path.read_bytes() + b'{"op_code": 5, "wor')
    lines: list[str] = []
    again = SweepController.open(config, tmp_path, notice=lines.append)
    run_out(again)
    assert set(states(again)) == {"complete"}
    assert len([line for line in lines if "cut off" in line]) == 1


def test_replicates_of_one_bad_setting_do_not_count_as_three_failures(parts, tmp_path):
    parts["search"]["replicates"] = 3
    sweep = SweepController.open(SweepConfig.model_validate(parts), tmp_path)
    complete(sweep, sweep.next_job())
    jobs = [sweep.next_job() for _ in range(3)]
    for job in jobs:
        fail(sweep, job)
        sweep.finish(job.spec.key)
    assert sweep.failed is None


def test_a_base_whose_baseline_fails_fails_its_own_trials_alone_and_the_manifest_says_why(parts, tmp_path):
    parts["space"]["base.dtype"] = {"type": "categorical", "choices": ["float32", "bfloat16"]}
    config = SweepConfig.model_validate(parts)
    sweep = SweepController.open(config, tmp_path)
    with sweep.going():
        fail_next(sweep)
        jobs = run_out(sweep)
    assert {job.spec.base.dtype for job in jobs} == {"bfloat16"}
    assert states(sweep).count("complete") == states(sweep).count("failed") == 2
    for _ in range(2):
        found = load(tmp_path / "little").trials
        assert sorted(found["state"]) == ["complete", "complete", "failed", "failed"]
        assert set(found.loc[found["state"] == "failed", "base.dtype"]) == {"float32"}
        trials = json.loads((tmp_path / "little" / "manifest.json").read_text())["trials"]
        assert [trial["failure"] for trial in trials if trial["key"] is None] == ["its baseline failed"] * 2
        with (again := SweepController.open(config, tmp_path)).going():  # only the baseline is tried again
            fail_next(again)
            assert again.next_job() is None


def test_trials_that_wait_for_their_verdict_when_a_baseline_fails_run_once_it_is_mended(parts, tmp_path):
    parts["space"]["base.dtype"] = {"type": "categorical", "choices": ["float32", "bfloat16"]}
    config = SweepConfig.model_validate(parts)
    with (sweep := SweepController.open(config, tmp_path)).going():
        fail_next(sweep)
        complete(sweep, sweep.next_job())
        while sweep.next_job() is not None:
            pass  # cut off before any of them has ended
    assert len(run_out(SweepController.open(config, tmp_path))) == 1 + 4


def test_a_study_that_another_process_keeps_locked_is_one_line(config, tmp_path, monkeypatch):
    monkeypatch.setattr(study_storage, "_LOCKED", 0.1)
    SweepController.open(config, tmp_path)
    path = tmp_path / "little" / "study.db"
    for lock in ("IMMEDIATE", "EXCLUSIVE"):  # others may read it still, or not even that
        with contextlib.closing(sqlite3.connect(path)) as other:
            other.execute(f"BEGIN {lock}")
            with pytest.raises(InputError, match=f"^search.study: {path}: database is locked$"):
                SweepController.open(config, tmp_path)
    assert SweepController.open(config, tmp_path).state.unfinished == 4


def test_a_worker_that_dies_is_not_taken_for_an_earlier_failure(config, tmp_path):
    sweep = SweepController.open(config, tmp_path)
    complete(sweep, sweep.next_job())
    fail(sweep, job := sweep.next_job())
    sweep.finish(job.spec.key, "died", "the node is gone")
    assert sweep.ledger.read(job.spec.key).failure.message == "the node is gone"


def test_a_worker_that_cannot_start_is_a_failed_record_that_says_why(config, tmp_path, monkeypatch):
    from orchestrator.cluster.searcher import StudySearcher
    from orchestrator.cluster.worker import TrialActor

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # the worker sets it
    sweep = SweepController.open(config, tmp_path)
    complete(sweep, sweep.next_job())
    searcher = StudySearcher(sweep, lambda: 1)
    suggested = searcher.suggest("trial")
    actor = object.__new__(TrialActor)  # as in a worker process, less what Ray does around it
    actor.setup(suggested, storage=str(tmp_path), mirror=str(tmp_path / "nowhere"))
    searcher.on_trial_complete("trial", actor.step())
    failed = sweep.ledger.read(TrialSpec.model_validate_json(suggested["jobs"][0]["spec"]).key)
    assert failed.state == "failed"
    where = tmp_path / "nowhere"
    assert failed.failure.message == f"the worker cannot start: InputError: hub_mirror: {where} is not a folder"
