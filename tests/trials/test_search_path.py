"""Modules in the working folder never replace those of Python or of the program."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

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


@pytest.mark.parametrize("version", [(3, 10, 4), (3, 14, 0)])
def test_other_python_is_one_line(version):
    code = f"import sys; sys.version_info = {version}; import trials.search_path"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("slimsweep needs Python 3.11 to 3.13, but ")
    assert done.stderr.endswith(f" is {'.'.join(map(str, version))}\n")
