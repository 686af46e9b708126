"""What the tests share: a sweep's config in miniature, and trials by the real stack that several tests look at."""

import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported: the figures of a trial are compared between processes
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import pytest
import yaml

from tests.factories.configs import CONFIG, deep

LONGEST = [
    "test_joint_training",
    "test_loss",
    "test_resume",
    "test_truths",
    "test_cli",
    "test_terminals",
    "test_decide",
    "test_drivers",
]
"""Files that begin first. A long file that begins last leaves the other process without work."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: LONGEST.index(item.path.stem) if item.path.stem in LONGEST else len(LONGEST))


@pytest.fixture(scope="module", autouse=True)
def _leaves_no_ray() -> Iterator[None]:
    """Some of Ray's functions connect by themselves, and a process that has a Ray starts none."""
    yield
    ray = sys.modules.get("ray")
    if ray is not None and ray.is_initialized():
        ray.shutdown()


@pytest.fixture
def parts() -> dict[str, Any]:
    """The config as plain data; change it and write it with `write`."""
    return deep(CONFIG)


@pytest.fixture
def write(tmp_path: Path):
    """Writes plain data as a YAML file and returns its path."""

    def writer(value: Any, name: str = "config.yaml") -> Path:
        path = tmp_path / name
        path.write_text(yaml.safe_dump(value, sort_keys=False))
        return path

    return writer


@pytest.fixture
def spec(parts):
    """The config's trial."""
    from trials.spec import TrialSpec

    return TrialSpec.model_validate({name: parts[name] for name in TrialSpec.model_fields if name in parts})


@pytest.fixture(scope="session")
def worker(tmp_path_factory):
    """A worker on micro whose base and tasks stay loaded for all tests; its ledger is its own."""
    import torch

    from trials.hub.hub import Hub
    from trials.ledger.record import Ledger
    from trials.run.worker import Worker

    torch.set_num_threads(1)
    return Worker(Ledger(tmp_path_factory.mktemp("storage")), Hub())


@pytest.fixture
def another(worker, tmp_path):
    """Makes workers on this test's own ledger; they share the base and the tasks that are loaded."""
    from trials.ledger.record import Ledger
    from trials.run.worker import Worker

    def make(pace=worker.session.pace) -> Worker:
        made = Worker(Ledger(tmp_path), worker.session.hub)
        made.session.tasks, made.session._base, made.session.pace = worker.session.tasks, worker.session._base, pace
        return made

    return make


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]):
    """Runs `slimsweep ARGUMENTS` in this process, which saves seconds of imports; for what ends before a Ray is started."""
    from orchestrator import cli

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        line = ["slimsweep", *map(str, arguments)]
        monkeypatch.setattr(sys, "argv", line)
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main()
        said = capfd.readouterr()
        return subprocess.CompletedProcess(line, int(ended.value.code or 0), said.out, said.err)

    return run


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """The address of an S3 server of this test run's own, on loopback; a closed pipe ends it, whatever became of the tests."""
    pytest.importorskip("moto.server", reason="moto[s3] is not installed: nothing here speaks S3")
    command = [sys.executable, str(Path(__file__).with_name("s3_server.py"))]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin and process.stdout
        yield process.stdout.readline().strip()
        process.stdin.close()


@pytest.fixture
def s3(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URL of an empty bucket; the server's address and keys are in the environment."""
    import s3fs

    for name, value in {
        "AWS_ENDPOINT_URL": s3_server,
        "AWS_ACCESS_KEY_ID": "key-of-a-test",
        "AWS_SECRET_ACCESS_KEY": "secret-of-a-test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()  # of clients made under another environment
    bucket = f"bucket-{uuid.uuid4().hex}"
    s3fs.S3FileSystem().mkdir(bucket)
    return f"s3://{bucket}"


@pytest.fixture(params=["folder", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """An empty storage root, on a disk and in a store."""
    from trials.ledger import storage

    return storage.root(tmp_path / "runs" if request.param == "folder" else f"{request.getfixturevalue('s3')}/runs")
