"""The process that runs vLLM: what it answers, and when vLLM sleeps. vLLM itself is a fake on transformers here."""

import json
import subprocess
import sys
from io import StringIO
from pathlib import Path

import pytest
import torch

from tests.factories import fake_vllm
from trials.evaluation.engine import vllm_process
from trials.evaluation.engine.vllm_server import write_base
from trials.hub.hub import Hub
from trials.models import base
from trials.spec import Base


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    folder = tmp_path_factory.mktemp("base")
    write_base(base.load(Base(model="micro", quantization="none", dtype="float32"), Hub()), folder)
    return {"model": str(folder), "dtype": "float32", "max_model_len": 64, "rank": 9}


REQUEST = {"prompts": [[5, 6, 7], [8]], "max_tokens": 4, "stops": [], "end_tokens": []}


@pytest.fixture
def fake(monkeypatch):
    monkeypatch.syspath_prepend(fake_vllm.FOLDER)
    yield
    for name in [name for name in sys.modules if name.partition(".")[0] == "vllm"]:
        del sys.modules[name]


def test_vllm_sleeps_between_requests_on_a_gpu(fake, settings, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    resident = vllm_process.Resident(dict(settings))
    found = [resident.responses(REQUEST) for _ in range(2)]
    assert found[0] == found[1]
    assert [(len(tokens), stopped) for tokens, stopped in found[0]] == [(4, False), (4, False)]
    assert resident._llm.turns == ["sleep 1", "wake", "sleep 1"]
    assert resident._llm.rank == 16


def test_vllm_never_sleeps_on_a_cpu(fake, settings):
    resident = vllm_process.Resident(dict(settings))
    resident.responses(REQUEST)
    assert resident._llm.turns == []


def test_every_line_is_answered_by_a_line(fake, settings, monkeypatch):
    lines = [REQUEST, {**REQUEST, "stops": None}, {**REQUEST, "prompts": []}]
    monkeypatch.setattr(sys, "stdin", StringIO("".join(f"{json.dumps(one)}\n" for one in lines)))
    answers = StringIO()
    vllm_process.main(dict(settings), answers)
    found = [json.loads(line) for line in answers.getvalue().splitlines()]
    assert [set(one) for one in found] == [{"responses", "version"}, {"failed", "message"}, {"responses", "version"}]
    assert (found[1]["failed"], found[2]["responses"]) == ("TypeError", [])


def test_process_needs_nothing_of_this_program(settings, tmp_path):
    (tmp_path / "trials").mkdir()
    (tmp_path / "trials" / "__init__.py").write_text("raise SystemExit('this program is imported')")
    python = Path(fake_vllm.python(tmp_path))
    python.write_text(python.read_text().replace("PYTHONPATH=", f"PYTHONPATH={tmp_path}:"))
    command = [str(python), "-P", vllm_process.__file__, json.dumps(settings), "1"]
    told = subprocess.run(command, input=json.dumps(REQUEST), cwd=tmp_path, stdout=subprocess.PIPE, text=True, check=True)
    assert len(json.loads(told.stdout)["responses"]) == 2
