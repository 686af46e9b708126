"""The process that trains with Unsloth reads no pickle and does not outlive its parent."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from tests.factories.bases import MICRO

ROOT = Path(__file__).parents[3]


@contextmanager
def process(folder: Path, model: Path | str) -> Iterator[subprocess.Popen]:
    """The process on this base; its messages come by standard error."""
    request = {
        "base": {"model_name": str(model), "revision": None, "dtype": "float32"},
        **{
            "load_in_4bit": False,
            "max_seq_length": 8,
            "lora": {},
            "train": {"seed": 0},
            "pad_id": 0,
            "rows": [],
            "pace": [0, 1],
        },
    }
    (folder / "request.json").write_text(json.dumps(request))
    command = [sys.executable, "-m", "trials.training.unsloth_process", str(folder), "2"]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as started:
        yield started


@pytest.mark.slow
def test_process_ends_with_its_parent(documented, monkeypatch):
    monkeypatch.setenv("HANGS", "1")
    with process(documented, "x") as started:
        assert started.stdin and started.stderr
        assert any("hanging" in line for line in started.stderr)
        started.stdin.close()
        assert started.wait(timeout=60) == 1


@pytest.mark.slow
def test_process_reads_no_pickle(documented, tmp_path):
    model = Path(shutil.copytree(MICRO, tmp_path / "model", ignore=shutil.ignore_patterns("*.safetensors")))
    torch.save({}, model / "pytorch_model.bin")
    with process(documented, model) as started:
        assert started.stdin and started.stderr
        failed = next(json.loads(line) for line in started.stderr if line.startswith('{"failed"'))
        started.stdin.close()
    assert failed["failed"] == "InputError"
    assert "pytorch_model.bin is a pickle" in failed["message"]
