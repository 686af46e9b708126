"""The cause of a worker's death, out of what Ray reports."""

import pytest

from orchestrator.cluster.deaths import _first_cause


@pytest.mark.parametrize(
    ("report", "cause"),
    [
        (
            "The actor died because of an error\n  File x\nModuleNotFoundError: No module named 'peft'",
            "ModuleNotFoundError: No module named 'peft'",
        ),
        (
            "The actor died.\n\tpid: 7\nWorker exit detail: Unexpected end of file. Some common causes include: (1) x",
            "Unexpected end of file.",
        ),
        ("Node is gone", "Node is gone"),
    ],
)
def test_report_is_one_line_without_advice(report, cause):
    assert _first_cause(report) == cause
