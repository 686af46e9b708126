"""The command line on the real Ray: a sweep from its config to the report, then the same command again."""

import importlib.metadata
import json
import tomllib
from contextlib import nullcontext

import pytest
import yaml

from orchestrator.cluster import connect
from orchestrator.config.model import SweepConfig
from orchestrator.sweep.controller import SweepController
from tests.factories.command import ROOT, slimsweep
from tests.factories.configs import CONFIG, deep
from tests.factories.sweep_state import complete, fail_next
from trials.ledger.record import Ledger
from trials.spec import TrialSpec

CONFIGS = sorted(
    path for path in (ROOT / "configs").rglob("*.yaml") if not {"cluster", "ablations", "chat", "tasks"} & set(path.parts)
)


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """A finished sweep of two trials: its storage, its config's path and what the command printed."""
    storage = tmp_path_factory.mktemp("swept")
    path = storage / "little.yaml"
    path.write_text(yaml.safe_dump(deep(CONFIG), sort_keys=False))
    ran = slimsweep("run", path, "--storage", storage / "runs")
    assert ran.returncode == 0, ran.stderr
    return storage / "runs", path, ran


def test_sweep_ends_with_front_figure_and_report(swept):
    runs, _, ran = swept
    assert {path.name for path in (runs / "little").iterdir()} >= {
        *("sweep.yaml", "manifest.json", "study.db", "report.html"),
        *("front.csv", "front.json", "front.parquet", "front.html", "front.png"),
    }
    assert len(list(Ledger(runs))) == 3
    lines = ran.stdout.splitlines()
    assert sum("baseline" in line for line in lines) >= 1
    assert sum(line.startswith("[") and "trial" in line for line in lines) == 2
    assert "ERROR" not in ran.stderr
    assert "Trials did not complete" not in ran.stderr
    row = json.loads((runs / "little" / "front.json").read_text())[0]
    assert set(row["params"]) == {"lora.rank"}
    assert {"value", "stderr", "low", "high", "search"} <= set(row["metrics"]["commonsense.gain"])


def test_finished_sweep_runs_nothing_again(swept, command):
    runs, path, _ = swept
    before = {key: (runs / "ledger" / key / "record.json").stat().st_mtime_ns for key in Ledger(runs)}
    again = command("run", path, "--storage", runs)
    assert again.returncode == 0, again.stderr
    assert "all 2 trials are done" in again.stdout
    assert before == {key: (runs / "ledger" / key / "record.json").stat().st_mtime_ns for key in Ledger(runs)}


def test_trial_alone_gives_identical_metrics(swept, another):
    runs, _, _ = swept
    key = json.loads((runs / "little" / "manifest.json").read_text())["trials"][0]["key"]
    spec = TrialSpec.model_validate(yaml.safe_load((runs / "ledger" / key / "spec.yaml").read_text()))
    worker, swept_ledger = another(), Ledger(runs)
    assert worker.run(spec).key == key
    assert worker.session.ledger.read(key).scores == swept_ledger.read(key).scores
    assert worker.session.ledger.documents(key).equals(swept_ledger.documents(key))


@pytest.mark.slow
def test_several_trials_per_pass_give_the_same_scores(swept, tmp_path):
    """The results of several trials go through Tune together."""
    parts = deep(CONFIG)
    parts["resources"] |= {"trials_per_pass": 3, "max_concurrent": 1}
    parts["search"]["racing"] = True
    (tmp_path / "little.yaml").write_text(yaml.safe_dump(parts, sort_keys=False))
    ran = slimsweep("run", tmp_path / "little.yaml", "--storage", tmp_path / "runs")
    assert ran.returncode == 0, ran.stderr
    together, alone = Ledger(tmp_path / "runs"), Ledger(swept[0])
    assert {together.read(key).together for key in together if not together.read(key).spec.is_baseline} == {2}
    assert {key: together.read(key).scores for key in together} == {key: alone.read(key).scores for key in alone}
    assert "[2/2]" in ran.stdout and "[3/2]" not in ran.stdout


def test_commands_read_the_sweep_and_print_json_alone(swept, command):
    runs, path, _ = swept
    status = json.loads(command("status", runs / "little", "--json").stdout)
    assert (status["complete"], status["failed"], status["budget"]) == (2, 0, 2)
    assert json.loads(command("front", runs / "little", "--format", "csv", "--json").stdout) == status["front"]
    assert json.loads(command("plan", path, "--storage", runs, "--json").stdout)["trials_done"] == 2
    assert command("report", runs / "little").returncode == 0
    assert json.loads(command("run", path, "--storage", runs, "--json").stdout)["front"] == status["front"]


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_shipped_config_loads_and_is_planned(path, tmp_path, command):
    planned = command("plan", path, "--storage", tmp_path, "--json")
    assert planned.returncode == 0, planned.stderr
    assert json.loads(planned.stdout)["trials"] >= 1


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda p: p["base"].update(model="nobody/nothing"), "base.model 'nobody/nothing'"),
        (lambda p: p["lora"].update(rnak=1), "unknown key 'lora.rnak'"),
        (lambda p: p["data"].update(samples=5_000), "needs 2500 rows"),
    ],
)
def test_bad_input_is_exit_code_2_and_leaves_no_files(tmp_path, command, monkeypatch, change, expected):
    monkeypatch.setattr(connect, "connected", lambda *_: nullcontext())  # inputs are checked while Ray starts
    parts = deep(CONFIG)
    change(parts)
    (tmp_path / "bad.yaml").write_text(yaml.safe_dump(parts))
    ran = command("run", tmp_path / "bad.yaml", "--storage", tmp_path / "runs")
    assert ran.returncode == 2
    assert expected in ran.stderr
    assert "Traceback" not in ran.stderr
    assert not (tmp_path / "runs").exists()


def test_sweep_without_a_complete_trial_is_exit_code_1(tmp_path, command):
    (tmp_path / "little.yaml").write_text(yaml.safe_dump(deep(CONFIG)))
    sweep = SweepController.open(SweepConfig.model_validate(CONFIG), tmp_path / "runs")
    with sweep.going():
        complete(sweep, sweep.next_job())
        fail_next(sweep, 2, "NonFiniteLoss")
    ran = command("run", tmp_path / "little.yaml", "--storage", tmp_path / "runs")
    assert ran.returncode == 1
    assert f"every trial failed; slimsweep status {tmp_path}/runs/little says why" in ran.stderr
    assert "all 2 trials are done" in ran.stdout


def test_folder_without_a_sweep_is_exit_code_2(tmp_path, command):
    for name in ("status", "front", "report"):
        ran = command(name, tmp_path / "none")
        assert ran.returncode == 2
        assert str(tmp_path / "none") in ran.stderr


def test_status_is_json_once_or_watched(tmp_path, command):
    ran = command("status", tmp_path, "--watch", "--json")
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr.startswith("status: --json prints once, so it goes without --watch") and len(ran.stderr.splitlines()) == 1


def test_version_is_the_packages(command):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    said = command("--version")
    assert (said.returncode, said.stdout) == (0, f"slimsweep {project['version']}\n")


def test_version_of_a_program_that_is_not_installed_is_one_line(command, monkeypatch):
    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", missing)
    said = command("--version")
    assert (said.returncode, said.stderr.count("\n")) == (2, 1) and "not installed" in said.stderr


def test_every_command_has_help_with_an_example(command):
    for name in ("run", "submit", "plan", "status", "front", "report"):
        assert "Example:" in command(name, "--help").stdout


def test_second_driver_of_a_sweep_is_refused(tmp_path):
    from orchestrator.run import _only_driver
    from trials.errors import InputError

    with _only_driver(tmp_path), pytest.raises(InputError, match="is being run already"), _only_driver(tmp_path):
        pass
    with _only_driver(tmp_path):
        pass


@pytest.mark.slow
def test_sweep_in_an_object_store_resumes_on_another_machine(s3, tmp_path, monkeypatch):
    (tmp_path / "little.yaml").write_text(yaml.safe_dump(deep(CONFIG)))
    fronts = []
    for machine in ("one", "two"):  # each with a cache, and so a study, of its own
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / machine))
        ran = slimsweep("run", tmp_path / "little.yaml", "--storage", f"{s3}/runs")
        assert ran.returncode == 0, ran.stderr
        assert ran.stdout.count("known already") == (2 if machine == "two" else 0)
        fronts.append(json.loads(slimsweep("status", f"{s3}/runs/little", "--json").stdout)["front"])
    assert fronts[0] == fronts[1]
