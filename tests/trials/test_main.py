"""`python -m trials`: the command runs specs and gives the numbers of the library."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.factories.specs import changed, small_spec
from trials.__main__ import main, parser
from trials.ledger.record import Ledger

ROOT = Path(__file__).parents[2]


def test_command_gives_the_metrics_of_the_worker(worker, spec, tmp_path):
    path = tmp_path / "spec.yaml"
    path.write_text(yaml.safe_dump(spec.model_dump(mode="json")))
    command = [sys.executable, "-m", "trials", str(path), "--storage", str(tmp_path / "runs")]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    by_command = Ledger(tmp_path / "runs").read(spec.key)
    record = worker.run(spec)
    assert by_command.scores == record.scores
    assert by_command.losses == record.losses


def test_bad_spec_exits_with_2_and_one_line(tmp_path, monkeypatch, capsys):
    path = tmp_path / "spec.yaml"
    path.write_text("lora: {rnak: 4}\n")
    monkeypatch.setattr(sys, "argv", ["trials", str(path)])
    assert main() == 2
    assert f"{path}:1:8: unknown key 'lora.rnak'; did you mean 'rank'?" in capsys.readouterr().err


def test_storage_defaults_to_runs():
    assert parser().parse_args(["spec.yaml"]).storage == "runs"


@pytest.mark.slow
def test_several_specs_are_trained_in_one_pass(tmp_path, monkeypatch, capsys):
    specs = [small_spec(), changed(small_spec(), lora={"rank": 2})]
    paths = [tmp_path / f"{number}.yaml" for number in range(2)]
    for path, spec in zip(paths, specs, strict=True):
        path.write_text(yaml.safe_dump(spec.model_dump(mode="json")))
    monkeypatch.setattr(sys, "argv", ["trials", *map(str, paths), "--storage", str(tmp_path / "runs")])
    assert main() == 0
    printed = [line.rpartition("/")[0][-16:] for line in capsys.readouterr().out.splitlines() if "record.json" in line]
    assert printed == [spec.key for spec in specs]
    assert {Ledger(tmp_path / "runs").read(spec.key).together for spec in specs} == {2}
