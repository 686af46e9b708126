"""The notebook of the paper's setting: how it is kept, what it asks of the command line, and a run of it on micro."""

import ast
import json
import sys
from pathlib import Path

import nbformat
import pytest
import typer
from nbclient import NotebookClient

from orchestrator.ablations.design import Ablations
from orchestrator.cli import app
from orchestrator.planning.cost import GIB
from orchestrator.planning.plan import Gpus, plan

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
PAPER = ROOT / "notebooks" / "paper.ipynb"


def read(path=PAPER):
    return nbformat.read(path, as_version=nbformat.NO_CONVERT)


def code(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def parameters(notebook):
    (found,) = [cell for cell in code(notebook) if "parameters" in cell.metadata.get("tags", [])]
    return found


def tree(notebook):
    return ast.parse("\n".join(cell.source for cell in code(notebook)))


def commands(notebook, values):
    """The arguments of each `slimsweep(...)` in the notebook, names of parameters replaced by their values."""
    calls = [one for one in ast.walk(tree(notebook)) if isinstance(one, ast.Call) and ast.unparse(one.func) == "slimsweep"]
    return [[str(eval(ast.unparse(argument), {}, values)) for argument in call.args] for call in calls]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_a_notebook_is_kept_without_outputs_and_with_ids(path):
    notebook = read(path)
    nbformat.validate(notebook)
    assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
    assert all(not cell.outputs and cell.execution_count is None for cell in code(notebook))
    ids = [cell.id for cell in notebook.cells]
    assert len(set(ids)) == len(ids)


def test_every_command_of_the_notebook_is_one_that_the_program_takes():
    notebook, values = read(), {}
    exec(parameters(notebook).source, values)
    found = commands(notebook, values)
    assert ["ablate", "paper"] in [one[:2] for one in found]
    program = typer.main.get_command(app)
    for arguments in found:
        name, command, rest = program.resolve_command(typer.Context(program), arguments)
        command.make_context(name, rest)  # parses, and raises what it cannot; nothing is run
    for base in ("instruct", "tinyllama", "micro"):  # those that the notebook names
        for scale in ("full", "small"):
            assert Ablations().plan("paper", base, scale)
    assert Ablations().plan("paper", values["BASE"], values["SCALE"])


def test_what_the_notebook_says_of_a_t4_is_what_the_plan_counts(tmp_path):
    (told,) = [cell.source for cell in read().cells if cell.id == "costs"]
    ablations = Ablations()
    counted = {}
    for base in ("instruct", "tinyllama"):
        (planned,) = ablations.plan("paper", base)
        assert planned.config.resources.cpus_per_trial <= 2  # Colab's runtime has no more, and a trial must find room there
        counted[base] = plan(planned.config, tmp_path, Gpus("T4"), ablations.frame.shapes)
    for base, found in counted.items():
        assert f"{found.memory.total / GIB:.1f} GiB" in told, base
    instruct = counted["instruct"]
    assert f"about {instruct.gpu_hours:.1f} hours" in told
    assert f"{instruct.memory.parts['weights'] / GIB:.1f} GiB of 4-bit weights" in told
    assert f"{instruct.memory.available / GIB:.1f} GiB that are counted on" in " ".join(told.split())


def test_a_command_that_fails_stops_the_notebook(capsys, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    (function,) = [one for one in tree(read()).body if isinstance(one, ast.FunctionDef) and one.name == "slimsweep"]
    names = {"sys": sys}
    exec("import subprocess\n" + ast.unparse(function), names)
    with pytest.raises(RuntimeError, match="exit code 2"):
        names["slimsweep"]("ablate", "no-such-ablation")
    assert "no ablation 'no-such-ablation'" in capsys.readouterr().out  # the program's own line was shown


def execute(notebook, folder, monkeypatch):
    """Runs all cells in `folder`, in a kernel of this very interpreter; returns each code cell's outputs by id."""
    spec = folder / "jupyter" / "kernels" / "this" / "kernel.json"
    spec.parent.mkdir(parents=True, exist_ok=True)
    argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    spec.write_text(json.dumps({"argv": argv, "display_name": "this", "language": "python"}))
    monkeypatch.setenv("JUPYTER_PATH", str(folder / "jupyter"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    NotebookClient(notebook, timeout=1200, kernel_name="this", resources={"metadata": {"path": str(folder)}}).execute()
    return {cell.id: cell.outputs for cell in code(notebook)}


def printed(outputs):
    return "".join(one.text for one in outputs if one.output_type == "stream")


@pytest.mark.slow
def test_the_notebook_runs_to_its_answer_and_again_goes_on_where_it_was(tmp_path, monkeypatch):
    storage = tmp_path / "runs"
    notebook = read()
    parameters(notebook).source = f'BASE = "micro"\nSCALE = "small"\nSTORAGE = {str(storage)!r}\nSOURCE = "nowhere"'
    shown = execute(notebook, tmp_path, monkeypatch)
    assert "paper-micro-small" in printed(shown["run"])
    assert printed(shown["installation"]) == ""  # it was importable
    page = Path(printed(shown["run"]).splitlines()[-1])
    assert page == storage / "ablations-micro-small" / "index.html"
    assert page.exists()
    assert any("Is mathematics forgotten?" in one.data["text/markdown"] for one in shown["words"])
    assert any("image/png" in one.get("data", {}) for one in shown["figure"])

    records = {path: path.stat().st_mtime_ns for path in storage.glob("ledger/*/record.json")}
    assert len(records) == 3  # the baseline and two seeds
    execute(notebook, tmp_path, monkeypatch)
    assert {path: path.stat().st_mtime_ns for path in storage.glob("ledger/*/record.json")} == records
