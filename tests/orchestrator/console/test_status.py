"""Status counts the trials by state and shows failures and front."""

import io

from orchestrator.console.status import show, summary
from orchestrator.console.terminal import Terminal
from tests.factories.sweeps import Builder
from trials.ledger import trial_progress
from trials.ledger.trial_progress import TrialProgress


def test_states_are_counted_and_shown(tmp_path):
    sweep = Builder(tmp_path).baseline().add((26, 37)).add((24, 40)).load()
    found = summary(sweep)
    assert (found["complete"], found["failed"], found["given_up"], found["pending"]) == (2, 0, 0, 0)
    terminal = Terminal(width=200, file=io.StringIO())
    show(sweep, terminal)
    assert "quickstart: 2" in terminal.file.getvalue() and "front of quickstart" in terminal.file.getvalue()


def test_running_trial_is_shown_with_its_progress_and_an_honest_end(tmp_path):
    builder = Builder(tmp_path).baseline().add((26, 37)).add()
    key = builder.trials[1]["key"]
    written = TrialProgress(key=key, phase="train", step=3, steps=9, loss=1.5, left=60.0, written="2026-01-01T00:00:00+00:00")
    trial_progress.write(builder.ledger.folder(key), written)
    lease = builder.ledger.lease(key)
    try:
        sweep = builder.load()
        (found,) = summary(sweep)["running"]
        assert (found["number"], found["key"], found["progress"]["step"]) == (1, key, 3)
        terminal = Terminal(width=240, file=io.StringIO())
        show(sweep, terminal)
    finally:
        lease.release()
    shown = terminal.file.getvalue()
    assert "0 waiting, 1 running" in shown
    assert f"trial 1  {key[:8]}  train 3/9, loss 1.500, 1 min 00 s left (no sign of life for" in shown
    assert "trial ends in about 1 min 04 s" in shown  # the finished trial evaluated for 3.5 s
