"""TensorBoard's event files, read back."""

from dataclasses import replace

import pytest

from orchestrator.trackers.tensorboard import TensorBoard
from trials.ledger.trial_progress import TrialProgress


def test_each_trial_is_a_run_with_settings_metrics_and_losses(tmp_path, record):
    pytest.importorskip("tensorboardX", reason="tensorboardX is not installed")
    reader = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="tensorboard is not installed"
    )
    from tensorboard.plugins.hparams import plugin_data_pb2

    record("tensorboard", tmp_path)
    runs = tmp_path / "tensorboard"
    assert {path.name for path in runs.iterdir()} == {"baseline-base", "trial-0", "trial-1-replicate-2"}
    read = reader.EventAccumulator(str(runs / "trial-0"))
    read.Reload()
    assert set(read.Tags()["scalars"]) == {"training.loss", "commonsense.gain", "seconds.train", "seconds.evaluate.math"}
    assert [(one.step, one.value) for one in read.Scalars("training.loss")] == [(1, 3.0), (2, 2.5)]
    assert read.Scalars("commonsense.gain")[0].value == pytest.approx(0.02)
    started = plugin_data_pb2.HParamsPluginData.FromString(
        read.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    )
    hparams = started.session_start_info.hparams
    assert {name: value.number_value for name, value in hparams.items()} == {"lora.rank": 4, "data.mix.micro/gsm8k": 0.5}


def test_curve_grows_while_the_trial_runs_and_has_each_step_once(tmp_path, events):
    pytest.importorskip("tensorboardX", reason="tensorboardX is not installed")
    reader = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="tensorboard is not installed"
    )
    tracker = TensorBoard("little", tmp_path)

    def curve() -> list[tuple[int, float]]:
        read = reader.EventAccumulator(str(tmp_path / "tensorboard" / "trial-0"))
        read.Reload()
        if "training.loss" not in read.Tags()["scalars"]:
            return []
        return [(one.step, one.value) for one in read.Scalars("training.loss")]

    now = TrialProgress(key=events[3].key, phase="train", step=1, steps=2, tokens_per_second=50.0, losses=[(1, 3.0)])
    running = replace(events[2], event="trial_progress", progress=now)
    tracker.progress(running)
    while not curve():  # tensorboardX writes in a thread of its own, and a flush takes what that has written
        tracker.progress(running)
    assert curve() == [(1, 3.0)]
    tracker.trial(events[3])
    tracker.progress(replace(events[2], event="trial_progress", number=5, progress=now))
    tracker.close()
    assert curve() == [(1, 3.0), (2, 2.5)]
