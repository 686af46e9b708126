"""The progress as text, and on standard error."""

import io

import pytest

from trials.ledger.trial_progress import TrialProgress
from trials.progress_line import ProgressLine, describe


@pytest.mark.parametrize(
    ("progress", "text"),
    [
        ({"phase": "load"}, "load"),
        (
            {"phase": "train", "step": 120, "steps": 600, "loss": 1.2344, "tokens_per_second": 5400.4, "left": 250},
            "train 120/600, loss 1.234, 5,400 tokens/s, 0:04:10 left",
        ),
        (
            {"phase": "evaluate.math", "documents": 20, "of_documents": 80, "left": 0.0},
            "evaluate math 20/80 documents, 0:00:01 left",
        ),
        ({"phase": "train", "step": 0, "steps": 6, "parent": "abc"}, "train (its training, abc) 0/6"),
        ({"phase": "evaluate.\x1b[2J\n"}, "evaluate \\x1b[2J"),
        ({"phase": "drift", "documents": 8, "of_documents": 64}, "drift 8/64 rows"),
    ],
)
def test_progress_is_one_printable_line(progress, text):
    assert describe(TrialProgress(key="k", **progress)) == text


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_terminal_line_is_redrawn_in_place_and_removed_in_the_end():
    shown = ProgressLine(Terminal())
    for step in range(50):
        shown(TrialProgress(key="k", phase="train", step=step, steps=50))
    shown.clear()
    written = shown._stream.getvalue()
    assert "\n" not in written
    assert written.endswith("\r\x1b[K")


def test_pipe_gets_a_line_a_phase_and_every_half_minute():
    now = [0.0]
    shown = ProgressLine(io.StringIO(), lambda: now[0])
    for step in range(61):
        now[0] = float(step)
        shown(TrialProgress(key="k", phase="train", step=step, steps=99))
    shown(TrialProgress(key="k", phase="drift"))
    assert shown._stream.getvalue().splitlines() == ["k  train 0/99", "k  train 30/99", "k  train 60/99", "k  drift"]
