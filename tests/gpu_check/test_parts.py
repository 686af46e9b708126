"""Every part of the GPU check passes on a CPU, and a part that does not hold is told."""

import math
import os
import sys

import pytest

from tests.gpu_check import __main__ as check
from tests.gpu_check.finding import Finding, World

QUICK = {"layers", "training", "programs"}


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] * (name not in QUICK)) for name in check.PARTS])
def test_part_passes_on_a_cpu(name, tmp_path):
    found = check.run(name, World(tmp_path, "micro", rows=32, documents=6))
    assert found["state"] == ("needs a GPU" if name == "programs" else "passed"), found


def test_value_outside_of_its_bounds_fails_the_part(tmp_path, monkeypatch):
    world = World(tmp_path, "micro")
    for finding, state in (
        (Finding("x", 1.0, most=2.0, least=0.5), "passed"),
        (Finding("x", 3.0, most=2.0), "failed"),
        (Finding("x", 0.0, least=0.5), "failed"),
        (Finding("x", math.nan), "failed"),
    ):
        monkeypatch.setitem(check.PARTS, "one", lambda world, finding=finding: iter([finding]))
        assert check.run("one", world)["state"] == state
    monkeypatch.setitem(check.PARTS, "one", lambda world: 1 / 0)
    assert "ZeroDivisionError" in check.run("one", world)["reason"]


def test_call_that_was_cut_off_goes_on_where_it_stopped(tmp_path, monkeypatch, capsys):
    ran = []
    for name in list(check.PARTS):
        monkeypatch.delitem(check.PARTS, name)
    for name, most in (("good", 2.0), ("bad", 0.0)):
        monkeypatch.setitem(
            check.PARTS, name, lambda world, name=name, most=most: ran.append(name) or iter([Finding("x", 1.0, most)])
        )
    monkeypatch.setattr(os, "environ", dict(os.environ))
    monkeypatch.setattr(sys, "argv", ["gpu_check", "--folder", str(tmp_path)])
    assert (check.main(), check.main()) == (1, 1)
    assert ran == ["good", "bad", "bad"]
    text = (tmp_path / "results.md").read_text()
    assert "| good | passed |" in text and "1 (!) | at most 0 |" in text
    monkeypatch.setattr(sys, "argv", ["gpu_check", "--folder", str(tmp_path), "--minutes", "0"])
    check.main()
    assert "call again for bad" in capsys.readouterr().out
