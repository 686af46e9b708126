"""What an earlier command left decides whether pins stay, and whether the sweep may start over."""

import json
import shutil

import pytest

from orchestrator.config.model import SweepConfig
from orchestrator.sweep import earlier_run
from orchestrator.sweep.controller import SweepController
from tests.factories.bases import MICRO
from tests.factories.own_tasks import SUMS, shop
from tests.factories.sweep_state import complete, run_out
from trials.errors import InputError
from trials.ledger.record import Ledger


@pytest.fixture
def own_base(parts, tmp_path) -> SweepConfig:
    """A grid on a base in a local folder."""
    shutil.copytree(MICRO, tmp_path / "base")
    parts["base"]["model"] = str(tmp_path / "base")
    return SweepConfig.model_validate(parts)


def change(config: SweepConfig) -> None:
    with open(f"{config.base.model}/config.json", "a") as file:  # noqa: PTH123
        file.write(" ")


def test_base_may_change_until_a_trial_has_finished(own_base, tmp_path):
    before = earlier_run.pinned(own_base, tmp_path)
    sweep = SweepController.open(before, tmp_path)
    complete(sweep, sweep.next_job())  # the baseline
    change(own_base)
    after = earlier_run.pinned(own_base, tmp_path)
    assert after.pins.models != before.pins.models


def test_changed_base_of_a_sweep_with_a_finished_trial_is_refused(own_base, tmp_path):
    config = earlier_run.pinned(own_base, tmp_path)
    run_out(SweepController.open(config, tmp_path))
    assert earlier_run.pinned(own_base, tmp_path).pins == config.pins
    change(own_base)
    with pytest.raises(InputError, match=r"the model .*base changed since this sweep began"):
        earlier_run.pinned(own_base, tmp_path)


def test_baseline_is_no_finished_trial(config, tmp_path):
    sweep = SweepController.open(config, tmp_path)
    complete(sweep, sweep.next_job())
    assert not earlier_run.finished(sweep.folder, Ledger(tmp_path))
    assert earlier_run.may_start_over(config, sweep.folder, Ledger(tmp_path))
    complete(sweep, sweep.next_job())
    assert earlier_run.finished(sweep.folder, Ledger(tmp_path))
    assert not earlier_run.may_start_over(config, sweep.folder, Ledger(tmp_path))


def test_shared_study_is_never_started_over(config, tmp_path):
    shared = config.model_copy(update={"search": config.search.model_copy(update={"study": "journal"})})
    sweep = SweepController.open(shared, tmp_path)
    assert not earlier_run.may_start_over(shared, sweep.folder, Ledger(tmp_path))


def test_files_of_a_sweep_that_starts_over_are_kept(tmp_path):
    for content in ("first", "second"):
        (tmp_path / "manifest.json").write_text(json.dumps(content))
        earlier_run.set_aside(tmp_path)
    assert json.loads((tmp_path / "manifest.json.before").read_text()) == "first"
    assert json.loads((tmp_path / "manifest.json.before-1").read_text()) == "second"


@pytest.fixture
def own_tasks(parts, tmp_path) -> SweepConfig:
    parts["eval"]["sums"] = {**SUMS, "include": str(shop(tmp_path))}
    return SweepConfig.model_validate(parts)


def test_task_folder_that_changes_in_mid_sweep_is_refused(own_tasks, tmp_path):
    storage = tmp_path / "runs"
    run_out(SweepController.open(earlier_run.pinned(own_tasks, storage), storage))
    with (tmp_path / "shop" / "sums.yaml").open("a") as file:
        file.write("\n")
    with pytest.raises(InputError, match=r"the folder of task eval.sums.shop_sums changed since this sweep began"):
        earlier_run.pinned(own_tasks, storage)


def test_moved_task_folder_goes_on(own_tasks, tmp_path):
    storage = tmp_path / "runs"
    before = earlier_run.pinned(own_tasks, storage)
    run_out(SweepController.open(before, storage))
    (tmp_path / "shop").rename(tmp_path / "moved")
    sums = own_tasks.eval["sums"].model_copy(update={"include": str(tmp_path / "moved")})
    moved = earlier_run.pinned(own_tasks.model_copy(update={"eval": {**own_tasks.eval, "sums": sums}}), storage)
    assert [spec.key for spec in moved.baseline_specs()] == [spec.key for spec in before.baseline_specs()]


def test_storage_within_a_task_folder_is_refused(own_tasks, tmp_path):
    with pytest.raises(InputError, match="is inside the task folder"):
        earlier_run.pinned(own_tasks, tmp_path / "shop" / "runs")
