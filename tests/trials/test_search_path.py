"""Modules in the working folder never replace those of Python or of the program."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
CODE = "import trials.search_path, sys, yaml; print(yaml.__file__, '' in sys.path)"


def test_working_folder_shadows_no_module(tmp_path):
    (tmp_path / "yaml.py").write_text("raise SystemExit('shadowed')")
    environment = {**os.environ, "PYTHONPATH": f"{os.pathsep}{ROOT}"}
    done = subprocess.run(
        [sys.executable, "-c", CODE], cwd=tmp_path, env=environment, check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert not done.stdout.startswith(str(tmp_path))
    assert done.stdout.split()[-1] == "False"


def test_checkout_as_working_folder_stays():
    done = subprocess.run([sys.executable, "-c", CODE], cwd=ROOT, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[-1] == "True"
