"""The process that trains with Unsloth does not outlive its parent."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


@pytest.mark.slow
def test_process_ends_with_its_parent(documented, loaded, rows, monkeypatch):
    monkeypatch.setenv("HANGS", "1")
    request = {
        "base": {"model_name": "x", "revision": None, "dtype": "float32"},
        **{
            "load_in_4bit": True,
            "max_seq_length": 8,
            "lora": {},
            "train": {"seed": 0},
            "pad_id": 0,
            "rows": [],
            "pace": [0, 1],
        },
    }
    (documented / "request.json").write_text(json.dumps(request))
    command = [sys.executable, "-m", "trials.training.unsloth_process", str(documented), "2"]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdin and process.stderr
        assert any("hanging" in line for line in process.stderr)
        process.stdin.close()
        assert process.wait(timeout=60) == 1
