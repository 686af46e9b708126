"""The tutorial's commands, one after the other in an empty folder, on the miniature base instead of a download."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.factories.chat_bases import chat_micro

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "tutorial.md"
COMMANDS = re.findall(r"^slimsweep .*", PAGE.read_text(), re.MULTILINE)
SMALLER = {"search.trials": 2, "data.samples": 32, "eval.commonsense.preset": "micro_swag", "eval.commonsense.documents": 40}
TRAINED = {
    "train.learning_rate": 3e-3,
    "space.train.learning_rate": "{type: categorical, choices: [3.0e-3, 6.0e-3]}",
    "train.epochs": 2,
}

pytestmark = pytest.mark.slow


def slimsweep(command: str, folder: Path, *more: str) -> str:
    program, *words = shlex.split(command)
    assert program == "slimsweep"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200"}
    line = [sys.executable, "-m", "orchestrator.cli", *words, *more]
    ran = subprocess.run(line, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, f"{command}\n{ran.stdout}{ran.stderr}"
    return ran.stdout


def test_commands_of_the_tutorial_lead_to_a_front_and_an_adapter(tmp_path):
    here = tmp_path / "empty"
    here.mkdir()
    changes = {
        "base.model": chat_micro(tmp_path),
        "base.dtype": "float32",
        "resources.cpus_per_trial": 1,
        **SMALLER,
        **TRAINED,
    }
    settings = [word for path, value in changes.items() for word in ("--set", f"{path}={value}")]
    said = {}
    for command in COMMANDS:
        words = shlex.split(command)
        said[words[1]] = slimsweep(
            command, here, *(settings if words[1] in ("plan", "run") else []), *(["--force"] * (words[1] == "publish"))
        )
    assert list(said) == ["init", "plan", "run", "status", "report", "publish"]
    assert "messages" in said["plan"] and "40" in said["plan"]
    assert "front of chat: " in said["run"]
    row = json.loads((here / "runs" / "chat" / "front.json").read_text())[0]
    assert {"places.gain", "commonsense.drop"} <= row["metrics"].keys()
    assert (here / "runs" / "chat" / "report.html").exists() and (here / "my-model" / "README.md").exists()


def test_files_that_the_tutorial_names_are_those_that_init_writes(tmp_path):
    slimsweep("slimsweep init chat", tmp_path)
    written = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert written == set(re.findall(r"^\| `(\S+)` \|", PAGE.read_text(), re.MULTILINE))
