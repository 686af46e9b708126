"""The exit code of a sweep that cannot go on."""

from orchestrator import cli
from orchestrator.errors import SweepFailed


def test_failed_sweep_exits_with_code_1_and_its_cause(monkeypatch, capsys):
    def fails() -> None:
        raise SweepFailed("every trial failed")

    monkeypatch.setattr(cli, "app", fails)
    assert cli._run() == 1
    assert "every trial failed" in capsys.readouterr().err
