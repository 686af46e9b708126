"""Another process finds the program that this one runs, whatever the user's working folder holds."""

import os
import subprocess
from pathlib import Path

import trials
from trials.other_process import command, inherited


def test_users_folder_does_not_shadow_the_program(tmp_path):
    (tmp_path / "trials").mkdir()
    (tmp_path / "trials" / "__init__.py").write_text("raise SystemExit('the wrong one')")
    told = subprocess.run(
        command("trials.run.threads"), cwd=tmp_path, env=inherited(), capture_output=True, text=True, check=False
    )
    assert (told.returncode, told.stderr) == (0, "")


def test_users_python_path_comes_after_the_program(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "/of/the/user")
    assert inherited()["PYTHONPATH"].split(os.pathsep) == [str(Path(trials.__file__).parents[1]), "/of/the/user"]
    monkeypatch.delenv("PYTHONPATH")
    assert inherited()["PYTHONPATH"] == str(Path(trials.__file__).parents[1])
