"""A sweep on a real Ray head from outside it: as a job and through Ray's client, with shipped code.

The head's own packages of the same names raise, so any code that runs there was shipped.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest

from orchestrator.cluster.runtime_env import PACKAGES
from tests.factories.bases import MICRO
from tests.factories.configs import CONFIG, deep
from tests.factories.ray_head import AUTHENTICATION, Head, head
from trials.ledger.record import Ledger
from trials.run.revision import git_revision

ROOT = Path(__file__).parents[2]
OURS, THEIRS, KEY = "hf_token-of-who-submits", "hf_token-of-the-node", "secret-key-of-a-store"

slow = pytest.mark.slow
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def ray(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Head]:
    """A head whose nodes have their own token, as from a Kubernetes secret."""
    folder = tmp_path_factory.mktemp("head")
    for name in PACKAGES:
        (folder / "poison" / name).mkdir(parents=True)
        (folder / "poison" / name / "__init__.py").write_text(f"raise ImportError('{name}: not the code that was shipped')")
    changed = pytest.MonkeyPatch()
    with changed.context() as environment:
        environment.setenv("PYTHONPATH", str(folder / "poison"))
        environment.setenv("HF_TOKEN", THEIRS)
        with head(folder) as running:
            yield running


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("storage")


@pytest.fixture
def slimsweep(storage: Path, write) -> Run:
    """Runs a command on a config that is CONFIG with changes, with a token in the environment."""

    def run(command: str, address: str, *arguments: str, **changes: object) -> subprocess.CompletedProcess[str]:
        config = write(deep(CONFIG) | changes)
        line = [sys.executable, "-m", "orchestrator.cli", command, str(config), "--address", address]
        line += [] if "--storage" in arguments else ["--storage", str(storage / "runs")]
        environment = {**os.environ, **AUTHENTICATION, "PYTHONPATH": str(ROOT), "HF_TOKEN": OURS, "AWS_SECRET_ACCESS_KEY": KEY}
        return subprocess.run([*line, *arguments], cwd=ROOT, capture_output=True, text=True, check=False, env=environment)

    return run


def job(ran: subprocess.CompletedProcess[str]) -> str:
    return next(word for word in ran.stdout.split() if word.startswith("raysubmit_"))


@slow
def test_submitted_sweep_returns_its_log_and_exit_code(ray, slimsweep, storage):
    ran = slimsweep("submit", ray.jobs, "--events", str(storage / "events.jsonl"))
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "[2/2]" in ran.stdout
    assert "front of little: 2 of 2 trials" in ran.stdout
    assert ran.stderr == ""
    assert json.loads((storage / "runs" / "little" / "front.json").read_text())
    assert (storage / "events.jsonl").exists()
    again = slimsweep("submit", ray.jobs)
    assert again.returncode == 0
    assert "all 2 trials are done" in again.stdout
    assert job(again) != job(ran)


@slow
def test_failed_job_gives_the_exit_code(ray, slimsweep, storage):
    ran = slimsweep("submit", ray.jobs, name="nothing", base={"model": "nobody/nothing"})
    assert ran.returncode == 2, ran.stdout + ran.stderr
    assert "base.model 'nobody/nothing' is neither a folder" in ran.stdout
    broken = shutil.copytree(MICRO, storage / "broken")
    (broken / "model.safetensors").write_bytes((MICRO / "model.safetensors").read_bytes()[:-1000])
    stopped = slimsweep("submit", ray.jobs, name="unable", base={"model": str(broken)}, space=THREE)
    assert stopped.returncode == 1, stopped.stdout + stopped.stderr
    assert "SafetensorError" in stopped.stdout


THREE = {"lora.rank": {"type": "categorical", "choices": [2, 4, 8]}}


@slow
def test_sweep_through_the_client_runs_on_the_cluster_and_prints_here(ray, slimsweep, storage):
    ran = slimsweep("run", ray.client, name="client")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert ran.stderr == ""
    assert "[2/2]" in ran.stdout
    assert "front of client: 2 of 2 trials" in ran.stdout
    as_json = slimsweep("run", ray.client, "--json", name="client")
    assert len(json.loads(as_json.stdout)["front"]) >= 1
    assert "all 2 trials are done" in as_json.stderr


@slow
def test_error_on_the_cluster_is_one_line_here(ray, slimsweep):
    ran = slimsweep("run", ray.client, name="nothing", base={"model": "nobody/nothing"})
    assert ran.returncode == 2
    assert ": base.model 'nobody/nothing'" in ran.stderr
    assert len(ran.stderr.splitlines()) == 1


@slow
def test_records_name_the_shipped_revision(ray, slimsweep, storage):
    slimsweep("submit", ray.jobs)
    ledger = Ledger(storage / "runs")
    assert {ledger.read(key).git for key in ledger} == {git_revision()}


@slow
def test_no_token_is_in_jobs_logs_or_storage(ray, slimsweep, storage):
    ran = slimsweep("submit", ray.jobs)
    code = "from ray.job_submission import *; import sys; print(JobSubmissionClient(sys.argv[1]).list_jobs())"
    asked = subprocess.run(
        [sys.executable, "-c", code, ray.jobs], capture_output=True, text=True, check=True, env=os.environ | AUTHENTICATION
    )
    assert job(ran) in asked.stdout
    places = [*files(ray.session), *files(storage)]
    assert any(path.name.startswith("worker-") for path in places)
    assert any(path.name == "record.json" for path in places)
    for token in (OURS, THEIRS, KEY):
        assert token not in ran.stdout + ran.stderr + asked.stdout
        assert [path for path in places if token.encode() in path.read_bytes()] == []


@slow
def test_no_key_of_a_store_is_in_the_logs(ray, slimsweep, storage):
    ran = slimsweep("run", ray.address, name="keys")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert [path for path in [*files(ray.session), *files(storage)] if KEY.encode() in path.read_bytes()] == []


@slow
def test_submitted_sweep_starts_every_time(ray, slimsweep):
    ends = [slimsweep("submit", ray.jobs, name=f"again-{number}") for number in range(4)]
    assert [ran.returncode for ran in ends] == [0] * 4, [ran.stdout for ran in ends]


@slow
@pytest.mark.parametrize("token", [{}, {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "f" * 64}], ids=["none", "wrong"])
def test_refused_token_is_one_line(ray, write, tmp_path, token):
    line = [sys.executable, "-m", "orchestrator.cli", "run", str(write(CONFIG)), "--address", ray.address]
    environment = {**os.environ, **token, "PYTHONPATH": str(ROOT)}
    ran = subprocess.run(
        [*line, "--storage", str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=False, env=environment
    )
    assert ran.returncode == 2
    assert ran.stderr.startswith(f"--address {ray.address}: no Ray cluster answers there: InvalidAuthToken")
    assert len(ran.stderr.splitlines()) == 1  # Ray itself would try for half a minute, with a line for each second


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]


@pytest.mark.parametrize(
    ("name", "address"), [("submit", "http://127.0.0.1:1"), pytest.param("run", "ray://127.0.0.1:1", marks=slow)]
)
def test_unreachable_address_is_one_line(command, parts, write, tmp_path, name, address):
    ran = command(name, write(parts), "--address", address, "--storage", tmp_path)
    assert ran.returncode == 2
    assert ran.stderr.startswith(f"--address {address}: no Ray cluster answers there")
    assert len(ran.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "changes", "named"),
    [
        (["--storage", "runs"], {}, "storage: runs"),
        (["--events", "events.jsonl"], {}, "--events: events.jsonl"),
        ([], {"hub_mirror": "mirror"}, "hub_mirror: mirror"),
    ],
)
@pytest.mark.parametrize(("name", "address"), [("submit", "http://127.0.0.1:1"), ("run", "ray://127.0.0.1:1")])
def test_relative_paths_are_refused(command, parts, write, tmp_path, name, address, arguments, changes, named):
    ran = command(name, write(parts | changes), "--address", address, "--storage", tmp_path, *arguments)
    assert ran.returncode == 2
    assert named in ran.stderr
    assert "absolute" in ran.stderr


@pytest.fixture
def old_server() -> Iterator[str]:
    """A job server that says what that of an old Ray would say."""

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(
                json.dumps({"version": "4", "ray_version": "2.9.3", "ray_commit": "", "session_name": ""}).encode()
            )

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Answers)
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def test_cluster_with_an_old_ray_is_one_line(command, parts, write, tmp_path, old_server):
    ran = command("submit", write(parts), "--address", old_server, "--storage", tmp_path)
    assert ran.returncode == 2
    expected = f"--address {old_server}: the cluster has Ray 2.9.3; a sweep needs Ray 2.60 or later and Python 3.11 to 3.13"
    assert ran.stderr.startswith(expected)
    assert len(ran.stderr.splitlines()) == 1
