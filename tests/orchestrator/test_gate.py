"""`slimsweep gate` tells a script by its exit code whether requirements hold."""

import json

import pytest

from tests.factories.configs import CONFIG, deep
from tests.factories.sweeps import Builder


@pytest.fixture
def folder(tmp_path):
    """Base 20 and 40 of 50; trial 0 gains 24 points of commonsense and loses nothing of math."""
    builder = Builder(tmp_path / "runs")
    builder.baseline().add((32, 40)).add((20, 10)).load()
    return builder.folder


@pytest.mark.parametrize(
    ("requirements", "code"),
    [
        (["commonsense.gain >= 0.05"], 0),
        (["commonsense.gain >= 0.05", "math.forgetting <= 0.2"], 0),
        (["commonsense.gain >= 0.3"], 3),
        (["commonsense.gain >= 0.05", "commonsense.gain >= 0.3"], 3),
        (["commonsense.gain >= 0.3", "commonsense.gain <= 0.01"], 1),
        (["commonsense.gain > 0.3"], 2),
        (["nobody.gain >= 0.3"], 2),
        (["commonsense.gain"], 2),
    ],
)
def test_exit_code_is_the_decision(requirements, code, folder, command):
    done = command("gate", folder, *[part for text in requirements for part in ("--require", text)])
    assert done.returncode == code, done.stderr
    assert len(done.stderr.splitlines()) == (code == 2)
    assert sum(line.startswith(("holds", "broken", "cannot tell")) for line in done.stdout.splitlines()) == (
        0 if code == 2 else len(requirements)
    )


def test_json_stands_alone_on_standard_output(folder, command):
    done = command("gate", folder, "--require", "math.forgetting <= 0.1", "--trial", "#1", "--json")
    assert done.returncode == 1
    found = json.loads(done.stdout)
    assert (found["decision"], found["trial"], found["level"]) == ("broken", 1, 0.95)
    assert found["requirements"][0]["low"] > 0.1


def test_config_stands_for_its_sweep(folder, command, write):
    path = write(deep(CONFIG) | {"name": "quickstart"})
    done = command("gate", path, "--storage", folder.parent, "--require", "commonsense.gain >= 0.05")
    assert done.returncode == 0, done.stderr


def test_missing_sweep_is_bad_input(tmp_path, command):
    done = command("gate", tmp_path / "none", "--require", "math.drop <= 0.1")
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1


def test_sweep_without_a_complete_trial_is_one_line_for_every_reader_of_results(tmp_path, command):
    builder = Builder(tmp_path / "runs").baseline().add()
    builder.load()
    for name in (
        ("gate", "--require", "math.drop <= 0.1"),
        ("front", "--format", "csv"),
        ("report",),
        ("compare", builder.folder),
    ):
        done = command(name[0], builder.folder, *name[1:])
        assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
        assert done.stderr.startswith("quickstart: no trial is complete, so ")
    assert (builder.folder / "report.html").exists()
