"""The names that every tracker uses."""

from orchestrator.trackers.base import metrics, run_name, settings, tags


def test_runs_are_named_by_trial_and_replicate(events):
    assert [run_name(event) for event in events[1:]] == ["baseline-base", "trial-0", "trial-0", "trial-1-replicate-2"]


def test_settings_have_dotted_paths_searched_or_not(events):
    found = settings(events[3])
    assert (found["lora.rank"], found["base.model"]) == (4, "micro")


def test_undefined_metrics_are_left_out(events):
    assert metrics(events[3]) == {"commonsense.gain": 0.02, "seconds.train": 2.0, "seconds.evaluate.math": 1.0}


def test_failure_is_a_tag(events):
    assert tags(events[4])["failure"] == "NonFiniteLoss: the loss was nan"
    assert tags(events[4])["state"] == "failed"
