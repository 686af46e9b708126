"""The code that is shipped to a cluster."""

import subprocess
from pathlib import Path

from orchestrator.cluster.runtime_env import PACKAGES, copy, runtime_env

ROOT = Path(__file__).parents[3]


def test_three_packages_are_shipped_and_nothing_else(tmp_path):
    copy(tmp_path)
    shipped = {path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file()}
    tracked = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", *PACKAGES],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert shipped == {Path(line) for line in tracked.splitlines()}


def test_submitted_job_ships_nothing_again(monkeypatch):
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    assert runtime_env() == {}


def test_no_secret_is_shipped(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.delenv("RAY_JOB_CONFIG_JSON_ENV_VAR", raising=False)
    assert "hf_secret" not in str(runtime_env())
