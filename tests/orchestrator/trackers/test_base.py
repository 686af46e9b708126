"""The names that every tracker uses."""

from orchestrator.sweep.events import Event
from orchestrator.trackers.base import Losses, metrics, rate, run_name, settings, tags
from trials.ledger.trial_progress import TrialProgress


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


def running(*losses: tuple[int, float], **more) -> Event:
    now = TrialProgress(key="k", phase="train", losses=list(losses), **more)
    return Event("trial_progress", "little", number=0, key="k", progress=now)


def test_each_loss_is_new_once_also_after_a_resume(events):
    losses = Losses()
    losses.begin(running())
    assert losses.new(running((1, 3.0))) == [(1, 3.0)]
    assert losses.new(running((1, 3.0), (3, 2.0))) == [(3, 2.0)]
    assert losses.new(running((1, 3.0), (2, 2.5))) == [(2, 2.5)]
    assert losses.new(events[3]) == []  # its record has steps 1 and 2


def test_steps_that_an_earlier_command_recorded_are_not_new(events):
    losses = Losses()
    losses.begin(running(), [1])
    assert losses.new(events[3]) == [(2, 2.5)]


def test_steps_of_an_ended_trial_are_forgotten():
    losses = Losses()
    losses.begin(running())
    losses.new(running((1, 3.0)))
    losses.end(running())
    assert losses._recorded == {}


def test_rate_belongs_to_a_training(events):
    assert rate(running(step=7, steps=9, tokens_per_second=100.0)) == (7, 100.0)
    assert rate(running()) is None
    assert rate(events[3]) is None


def test_running_trial_is_tagged_so():
    assert tags(running())["state"] == "running"
