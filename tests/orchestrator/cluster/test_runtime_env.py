"""What is shipped to a cluster: the code, and the config's task folders."""

import subprocess
from pathlib import Path

import pytest

from orchestrator.cluster.runtime_env import PACKAGES, copy, copy_task_folders, runtime_env
from orchestrator.config.model import SweepConfig
from tests.factories.own_tasks import SUMS, shop
from trials.tasks.folder import TaskFolder, files, shipped_name

ROOT = Path(__file__).parents[3]


@pytest.fixture
def config(parts) -> SweepConfig:
    return SweepConfig.model_validate(parts)


@pytest.fixture
def own(parts, tmp_path) -> SweepConfig:
    """A config with a role on a folder that has what must not travel."""
    folder = shop(tmp_path)
    (folder / ".env").write_text("TOKEN=hf_secret")
    (folder / "data" / "link.jsonl").symlink_to(folder / "data" / "sums.jsonl")
    parts["eval"]["sums"] = {**SUMS, "include": str(folder)}
    return SweepConfig.model_validate(parts)


def test_task_folder_travels_whole_but_for_hidden_files(own, tmp_path):
    include = own.eval["sums"].include
    (copied,) = copy_task_folders(own, tmp_path / "ship")
    assert copied == tmp_path / "ship" / shipped_name(include)
    assert files(copied).keys() == files(tmp_path / "shop").keys()
    assert not any(path.is_symlink() or path.name == ".env" for path in copied.rglob("*"))
    assert TaskFolder(copied).entries.keys() == TaskFolder(tmp_path / "shop").entries.keys()


def test_task_folder_is_a_module_of_the_runtime_environment(own, monkeypatch):
    monkeypatch.delenv("RAY_JOB_CONFIG_JSON_ENV_VAR", raising=False)
    with runtime_env(own) as shipped:
        folder = Path(shipped["py_modules"][-1])
        assert (folder / "sums.yaml").exists()
    assert not folder.exists()


def test_three_packages_are_shipped_and_nothing_else(config, tmp_path):
    copy(config, tmp_path)
    shipped = {path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file()}
    tracked = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", *PACKAGES],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert shipped == {Path(line) for line in tracked.splitlines()}


def test_submitted_job_ships_nothing_again(config, monkeypatch):
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    with runtime_env(config) as shipped:
        assert shipped == {}


def test_no_secret_is_shipped(config, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.delenv("RAY_JOB_CONFIG_JSON_ENV_VAR", raising=False)
    with runtime_env(config) as shipped:
        assert "hf_secret" not in str(shipped)
