"""TensorBoard's event files, read back."""

import pytest

from orchestrator.trackers.tensorboard import TensorBoard


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


def test_curve_grows_while_the_trial_runs_and_has_each_step_once(tmp_path, events, going_on):
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

    running = going_on(1)
    tracker.progress(running)
    while not curve():  # tensorboardX writes in a thread of its own, and a flush takes what that has written
        tracker.progress(running)
    assert curve() == [(1, 3.0)]
    tracker.trial(events[3])
    tracker.progress(going_on(1, number=5))
    tracker.close()
    assert curve() == [(1, 3.0), (2, 2.5)]


def test_curve_of_a_resumed_sweep_has_each_step_once(tmp_path, events, going_on):
    pytest.importorskip("tensorboardX", reason="tensorboardX is not installed")
    loader = pytest.importorskip("tensorboard.backend.event_processing.event_file_loader", reason="tensorboard is missing")
    stopped = TensorBoard("little", tmp_path)
    stopped.progress(going_on(1))
    stopped.close()
    run = tmp_path / "tensorboard" / "trial-0"
    (run / "notes.txt").write_text("mine")
    (old,) = run.glob("events.*")
    old.rename(run / "events.out.tfevents.1760000000.here.run")  # files of one second have one name
    resumed = TensorBoard("little", tmp_path)
    resumed.progress(going_on(2))
    resumed.trial(events[3])
    resumed.close()
    read = [event for file in run.glob("events.*") for event in loader.EventFileLoader(str(file)).Load()]
    assert sorted(one.step for one in read for value in one.summary.value if value.tag == "training.loss") == [1, 2]
    assert (run / "notes.txt").exists()
