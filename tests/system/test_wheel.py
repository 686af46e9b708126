"""The wheel: what is in it, and that it runs where there is no checkout."""

import ast
import json
import os
import shutil
import subprocess
import sys
import tomllib
import venv
import zipfile
from collections.abc import Callable
from importlib.metadata import PathDistribution
from pathlib import Path

import pydantic
import pytest

from orchestrator.config import shipped

ROOT = Path(__file__).parents[2]
CODE = ("orchestrator", "trials", "analysis", "slimsweep")
LOCKED = Path(pydantic.__file__).parents[1]  # where the packages of the lock are installed
CACHES = shutil.ignore_patterns("__pycache__")

Run = Callable[..., str]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Built from a copy, because setuptools writes into the folder that it builds."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in (*CODE, "configs"):
        shutil.copytree(ROOT / name, folder / name, ignore=CACHES)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    code = "from setuptools import build_meta; build_meta.build_wheel('dist')"
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], cwd=folder, check=True, capture_output=True)
    (built,) = (folder / "dist").glob("*.whl")
    return built


def files(folder: Path) -> set[str]:
    return {
        path.relative_to(folder.parent).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def test_wheel_holds_every_file_of_the_packages_and_of_configs(wheel):
    expected = set().union(*(files(ROOT / name) for name in CODE)) | {
        f"orchestrator/{name}" for name in files(ROOT / "configs")
    }
    with zipfile.ZipFile(wheel) as archive:
        assert {name for name in archive.namelist() if ".dist-info/" not in name} == expected


def said(path: Path) -> list[str]:
    """The texts of a module that a user may read: its literals without the docstrings, and the docstring of slimsweep."""
    tree = ast.parse(path.read_text())
    documented = [node for node in ast.walk(tree) if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)]
    hidden = {ast.get_docstring(node, clean=False) for node in documented if path != ROOT / "slimsweep" / "__init__.py"}
    literals = (node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str))
    return [text for text in literals if text not in hidden]


def test_no_message_and_no_config_points_to_a_page_that_a_wheel_lacks():
    texts = {path: path.read_text(errors="ignore") for path in (ROOT / "configs").rglob("*") if path.is_file()}
    texts |= {path: path.read_text() for path in (ROOT / "analysis" / "templates").iterdir()}
    texts |= {path: "\n".join(said(path)) for name in CODE for path in (ROOT / name).rglob("*.py")}
    assert [path for path, text in texts.items() if "docs/" in text] == []


def test_wheel_names_its_licence_and_holds_the_text(wheel):
    with zipfile.ZipFile(wheel) as archive:
        (folder,) = {name.partition("/")[0] for name in archive.namelist() if ".dist-info/" in name}
        assert archive.read(f"{folder}/licenses/LICENSE") == (ROOT / "LICENSE").read_bytes()
        metadata = PathDistribution(zipfile.Path(archive, f"{folder}/")).metadata
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Author"]


def test_every_package_of_the_repository_is_listed():
    listed = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"])
    found = {
        path.parent.relative_to(ROOT).as_posix().replace("/", ".") for name in CODE for path in (ROOT / name).rglob("*.py")
    }
    assert listed == found | {"orchestrator.configs"}


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Run:
    """Runs a program of an environment with the wheel and the lock's packages, in an empty folder; returns its output."""
    folder = tmp_path_factory.mktemp("installed")
    venv.create(folder / "env", symlinks=True)
    python, here = folder / "env" / "bin" / "python", folder / "empty"
    here.mkdir()
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps", "--no-index", str(wheel)]
    subprocess.run(pip, check=True)
    (packages,) = (folder / "env").glob("lib/python*/site-packages")
    (packages / "locked.pth").write_text(f"{LOCKED}\n")  # after pip, which would see the checkout's own installation there
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")} | {"HF_HUB_OFFLINE": "1"}

    def run(program: str, *arguments: object) -> str:
        command = [str(python.parent / program), *map(str, arguments)]
        ran = subprocess.run(command, cwd=here, env=environment, capture_output=True, text=True, check=False)
        assert ran.returncode == 0, ran.stdout + ran.stderr
        return ran.stdout

    run.here = here  # type: ignore[attr-defined]
    return run


@pytest.mark.slow
def test_installed_wheel_imports_nothing_of_the_checkout(installed):
    code = "import sys, orchestrator as a, trials as b, analysis as c; print(*sys.path, a.__file__, b.__file__, c.__file__)"
    inside = {Path(path) for path in installed("python", "-c", code).split() if Path(path).is_relative_to(ROOT)}
    assert inside <= {LOCKED}


@pytest.mark.slow
def test_installed_wheel_runs_a_sweep_and_one_of_its_trials(installed):
    installed("slimsweep", "init")
    settings = [word for role in ("commonsense", "math", "knowledge") for word in ("--set", f"eval.{role}.documents=40")]
    settings += ["--set", "search.trials=2", "--set", "data.samples=32", "--set", "space.data.samples.choices=[32, 64]"]
    assert json.loads(installed("slimsweep", "plan", "quickstart.yaml", *settings, "--json"))["trials"] == 2
    assert "front of quickstart: 2 of 2 trials" in installed("slimsweep", "run", "quickstart.yaml", *settings)
    runs = installed.here / "runs"
    key = json.loads((runs / "quickstart" / "manifest.json").read_text())["trials"][0]["key"]
    installed("python", "-m", "trials", runs / "ledger" / key / "spec.yaml", "--storage", "again")
    scores = [
        json.loads((root / "ledger" / key / "record.json").read_text())["scores"] for root in (runs, installed.here / "again")
    ]
    assert scores[0] == scores[1]


@pytest.mark.slow
def test_installed_wheel_runs_an_ablation(installed):
    said = installed("slimsweep", "ablate", "f1", "--base", "micro", "--scale", "small")
    assert "f1 on micro" in said and (installed.here / "runs" / "ablations-micro-small" / "index.html").exists()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["models/pythia-1b", "quickstart", "paper"])
def test_installed_wheel_has_the_shipped_configs(installed, name):
    assert json.loads(installed("slimsweep", "plan", f"configs/{name}.yaml", "--json"))["trials"] >= 1


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["quickstart", "paper"])
def test_written_config_passes_plan(installed, kind):
    installed("slimsweep", "init", kind, f"my-{kind}.yaml")
    assert (installed.here / f"my-{kind}.yaml").read_text() == (shipped.FOLDER / f"{kind}.yaml").read_text()
    assert json.loads(installed("slimsweep", "plan", f"my-{kind}.yaml", "--json"))["trials"] >= 1
