"""Several commands that drive one study share its work: no key twice, none lost, whoever dies."""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from orchestrator.config.model import SweepConfig
from orchestrator.sweep.controller import SweepController
from tests.factories import postgres
from tests.factories.ray_head import AUTHENTICATION, head
from tests.factories.sweep_state import complete, leave
from trials.errors import InputError

ROOT = Path(__file__).parents[2]
RANDOM = {"train.learning_rate": {"type": "float", "low": 1e-4, "high": 1e-2, "log": True}}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    if postgres.programs() is None:
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    with postgres.server(tmp_path_factory.mktemp("postgres") / "server") as url:
        yield url


@pytest.fixture(params=["journal", "postgres"])
def config(request, parts, tmp_path) -> SweepConfig:
    url = "journal" if request.param == "journal" else request.getfixturevalue("server")
    parts["name"] = f"shared-{tmp_path.name}"
    parts["space"] = RANDOM
    parts["search"].update(sampler="random", trials=12, study=url)
    return SweepConfig.model_validate(parts)


def states(sweep: SweepController) -> Counter:
    return Counter(trial.state for trial in sweep.study.trials())


def test_two_drivers_in_turns_share_a_budget_and_run_no_key_twice(config, tmp_path):
    one, two = SweepController.open(config, tmp_path), SweepController.open(config, tmp_path)
    ran = []
    for _ in range(40):
        for sweep in (one, two):
            job = sweep.next_job()
            if job is not None:
                ran.append(job.spec.key)
                complete(sweep, job)
    assert len(ran) == len(set(ran)) == 13
    assert states(one) == {"complete": 12}


def test_what_a_dead_driver_left_is_taken_over_by_one_of_the_others(config, tmp_path):
    script = (
        "import sys, json, os; from pathlib import Path; from orchestrator.config.model import SweepConfig; "
        "from orchestrator.sweep.controller import SweepController; "
        "sweep = SweepController.open(SweepConfig.model_validate_json(sys.argv[1]), Path(sys.argv[2])); "
        "[sweep.next_job() for _ in range(4)]; os.kill(os.getpid(), 9)"
    )
    died = subprocess.run([sys.executable, "-c", script, config.model_dump_json(), str(tmp_path)], check=False)
    assert died.returncode == -9
    one, two = SweepController.open(config, tmp_path), SweepController.open(config, tmp_path)
    assert states(one)["running"] == 3
    jobs = {sweep: [] for sweep in (one, two)}
    for _ in range(40):
        for sweep, ran in jobs.items():
            if (job := sweep.next_job()) is not None:
                ran.append(job.spec.key)
                complete(sweep, job)
    keys = jobs[one] + jobs[two]
    assert len(keys) == len(set(keys)) == 13
    assert states(two) == {"complete": 12}


def test_a_driver_waits_for_the_trials_of_another_and_does_not_take_them(config, tmp_path):
    one = SweepController.open(config, tmp_path)
    complete(one, one.next_job())
    mine = one.next_job()
    two = SweepController.open(config, tmp_path)
    while (job := two.next_job()) is not None:
        assert job.spec.key != mine.spec.key
        complete(two, job)
    assert not two.over
    leave(one, mine)
    one.finish(mine.spec.key)
    two.study.drivers._last = (-1e9, False)  # look again at once
    assert two.over


def test_a_study_of_another_sweep_of_the_same_name_is_refused(parts, tmp_path, server):
    parts["search"]["study"] = server
    shared = SweepConfig.model_validate(parts | {"name": "same"})
    SweepController.open(shared, tmp_path / "here")
    with pytest.raises(InputError, match="another `name`"):
        SweepController.open(shared, tmp_path / "there")


def test_a_server_that_does_not_answer_is_one_line(parts, tmp_path):
    pytest.importorskip("psycopg")
    parts["search"].update(study="postgresql://nobody@127.0.0.1:1/none")
    with pytest.raises(InputError, match=r"search\.study: .*127\.0\.0\.1") as found:
        SweepController.open(SweepConfig.model_validate(parts), tmp_path)
    assert "\n" not in str(found.value)


@pytest.mark.slow
def test_two_commands_on_the_real_ray_share_a_postgresql_study_of_50_trials(parts, tmp_path, write, server):
    parts["name"] = "shared"
    parts["space"] = RANDOM
    parts["search"].update(sampler="random", trials=50, study=server)
    parts["resources"]["max_concurrent"] = 1
    command = [sys.executable, "-m", "orchestrator.cli", "run", str(write(parts)), "--storage", str(tmp_path / "runs")]
    events = [tmp_path / "one.jsonl", tmp_path / "two.jsonl"]
    running = [subprocess.Popen([*command, "--events", str(path)], cwd=ROOT) for path in events]
    assert [process.wait(timeout=900) for process in running] == [0, 0]
    study = optuna.load_study(study_name="shared", storage=server.replace("postgresql://", "postgresql+psycopg://"))
    assert [trial.state for trial in study.trials] == [TrialState.COMPLETE] * 50
    logs = [[json.loads(line) for line in path.read_text().splitlines()] for path in events]
    started = [{one["key"] for one in log if one["event"] == "trial_started" and one["number"] is not None} for log in logs]
    assert all(started), "both took part"
    assert not started[0] & started[1]
    assert len(started[0] | started[1]) == 50
    # of the baseline, which both ask for at once, one worker had the right as of everything else
    assert {path.name for path in (tmp_path / "runs" / "ledger").glob("*/lease.*")} == {"lease.1.json"}
    assert len(list((tmp_path / "runs" / "ledger").glob("*/record.json"))) == 51


@pytest.mark.slow
def test_a_command_that_waits_for_another_ones_trial_leaves_it_the_room_on_a_full_cluster(parts, tmp_path, write):
    parts["space"] = RANDOM
    parts["search"].update(sampler="random", trials=3, study="journal")
    command = [sys.executable, "-m", "orchestrator.cli", "run", str(write(parts)), "--storage", str(tmp_path / "runs")]
    with head(tmp_path, cpus=2) as ray:
        command += ["--address", ray.address]
        environment = os.environ | AUTHENTICATION
        running = [subprocess.Popen(command, cwd=ROOT, env=environment) for _ in range(2)]
        try:
            assert [process.wait(timeout=400) for process in running] == [0, 0]
        finally:
            for process in running:
                process.kill()
    assert len(list((tmp_path / "runs" / "ledger").glob("*/record.json"))) == 4
