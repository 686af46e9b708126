"""A sweep that runs in a notebook is one output of its cell, redrawn in place."""

import json
import sys
from pathlib import Path

import nbformat
import pytest
import yaml
from nbclient import NotebookClient

from tests.factories.configs import CONFIG, deep

ROOT = Path(__file__).parents[2]
RUN = "import slimsweep\nresults = slimsweep.run(slimsweep.config('little.yaml'), 'runs')"
COMMAND = "!{__import__('sys').executable} -m orchestrator.cli run little.yaml --storage others"


def execute(folder: Path, monkeypatch, *cells: str) -> list:
    """Runs the cells in a kernel of this interpreter; returns each cell's outputs."""
    kernel = folder / "jupyter" / "kernels" / "this" / "kernel.json"
    kernel.parent.mkdir(parents=True)
    argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    kernel.write_text(json.dumps({"argv": argv, "display_name": "this", "language": "python"}))
    monkeypatch.setenv("JUPYTER_PATH", str(folder / "jupyter"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    NotebookClient(notebook, timeout=600, kernel_name="this", resources={"metadata": {"path": str(folder)}}).execute()
    return [cell.outputs for cell in notebook.cells]


@pytest.mark.slow
def test_sweep_in_a_notebook_is_one_table_and_its_command_a_few_lines(tmp_path, monkeypatch):
    parts = deep(CONFIG)
    parts["data"]["samples"] = 256
    (tmp_path / "little.yaml").write_text(yaml.safe_dump(parts))
    ran, shown, command = execute(tmp_path, monkeypatch, RUN, "results", COMMAND)
    tables = [one for one in ran if "best so far" in one.get("data", {}).get("text/html", "")]
    assert len(tables) == 1, ran
    assert "2 of 2 trials done, 0 running" in tables[0].data["text/html"]  # its last drawing
    assert len(ran) <= 8, "notes and a line for the beginning and the end"
    assert "front of little" in shown[0].data["text/html"]
    lines = "".join(one.get("text", "") for one in command).splitlines()
    assert sum(line.startswith("[") for line in lines) == 3
    assert len(lines) < 60
    assert not any("\x1b[" in line and "A" in line.partition("\x1b[")[2][:3] for line in lines), "the cursor moved"
