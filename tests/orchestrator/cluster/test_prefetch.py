"""Nodes of a real Ray, each with its own cache, and a hub on loopback that counts requests."""

import json
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest

from orchestrator.cluster import connect  # sets what Ray reads when it is imported
from orchestrator.cluster.prefetch import prestage
from orchestrator.config.model import SweepConfig
from tests.factories.busy_hub import BusyHub
from trials.errors import InputError

ROOT = Path(__file__).parents[3]
WEIGHTS = "GET /some/model/resolve/" + "a" * 40 + "/model.safetensors"
FETCH = """
import sys
from orchestrator.cluster.prefetch import _fetch
sys.stdin.readline()  # all at once
sys.exit(_fetch(sys.argv[1]))
"""


class IdleHub(BusyHub):
    """Answers at once, and lists a model's files."""

    asked: ClassVar[Counter[str]] = Counter()

    def do_HEAD(self):
        self.asked[f"{self.command} {self.path.partition('?')[0]}"] += 1
        self.answer([part for part in self.path.partition("?")[0].split("/") if part])

    do_GET = do_HEAD

    def describe(self, folder, what, below):
        if what != "revision" or not folder.is_dir():
            return super().describe(folder, what, below)
        files = [{"rfilename": str(path.relative_to(folder))} for path in folder.iterdir() if path.is_file()]
        return self.reply(200, json.dumps({"id": f"some/{folder.name}", "sha": self.commit, "siblings": files}).encode())


@pytest.fixture
def hub(monkeypatch) -> Iterator[Counter[str]]:
    """The hub's requests; the environment names its address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), IdleHub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    IdleHub.asked.clear()
    for name, value in {
        "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}",
        "HF_HUB_OFFLINE": "0",
        "PYTHONPATH": str(ROOT),
    }.items():
        monkeypatch.setenv(name, value)
    yield IdleHub.asked
    server.shutdown()


@pytest.fixture
def nodes(hub, tmp_path) -> Iterator[Any]:
    """A head without room for trials and two nodes with caches of their own."""
    import ray
    from ray.cluster_utils import Cluster

    cluster = Cluster()
    for name, cpus in (("head", 0), ("one", 1), ("two", 1)):
        cluster.add_node(
            num_cpus=cpus,
            node_ip_address="127.0.0.1",
            include_dashboard=False,
            object_store_memory=100_000_000,
            env_vars={"HF_HOME": str(tmp_path / name)},
        )
    ray.init(cluster.address, log_to_driver=False, logging_level="ERROR", _node_ip_address="127.0.0.1")
    yield cluster
    ray.shutdown()
    cluster.shutdown()


@pytest.fixture
def config(parts) -> SweepConfig:
    source = {"dataset": "some/gsm8k", "config": "main", "instruction": "{{question}}", "response": "{{answer}}"}
    parts["base"]["model"] = "some/model"
    parts["data"] = {"samples": 8, "mix": {"far": 1.0}, "sources": {"far": source}}
    return SweepConfig.model_validate(parts)


@pytest.mark.slow
def test_every_node_with_cpus_fetches_once(nodes, hub, config, tmp_path):
    said: list[str] = []
    prestage(config, said.append)
    assert hub[WEIGHTS] == 2
    assert said == ["fetching some/gsm8k, some/model on 2 nodes, where it is not there yet ..."]
    assert not (tmp_path / "head").exists()
    fetched = sum(number for asked, number in hub.items() if asked.startswith("GET") and "/resolve/" in asked)
    prestage(config, said.append)
    assert sum(number for asked, number in hub.items() if asked.startswith("GET") and "/resolve/" in asked) == fetched


@pytest.mark.slow
def test_node_that_cannot_fetch_is_named(nodes, hub, config):
    broken = config.model_copy(update={"base": config.base.model_copy(update={"model": "some/nothing"})})
    with pytest.raises(InputError, match=r"^node 127\.0\.0\.1: base\.model 'some/nothing' .*"):
        prestage(broken, lambda line: None)


@pytest.mark.slow
def test_concurrent_workers_fetch_once(hub, config, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    command = [sys.executable, "-c", FETCH, config.model_dump_json()]
    started = [subprocess.Popen(command, stdin=subprocess.PIPE, cwd=tmp_path) for _ in range(3)]
    for process in started:
        process.communicate(b"go\n")
    assert [process.returncode for process in started] == [0, 0, 0]
    assert hub[WEIGHTS] == 1


@pytest.mark.slow
def test_stock_task_is_fetched_where_the_mirror_lacks_its_data(parts, tmp_path, monkeypatch):
    monkeypatch.setattr(connect.ray, "nodes", list)
    parts["hub_mirror"] = str(tmp_path)
    parts["eval"] = {
        "commonsense": {"task": "hellaswag", "metric": "acc_norm"},
        "math": {"task": "gsm8k", "metric": "exact_match", "filter": "strict-match"},
        "knowledge": {"task": ["mmlu_college_computer_science", "mmlu_stem"], "metric": "acc"},
    }
    said: list[str] = []
    for there, wanted in (
        ("openai/gsm8k", "hellaswag, mmlu_college_computer_science, mmlu_stem"),
        ("cais/mmlu", "hellaswag"),
        ("Rowan/hellaswag", None),
    ):
        (tmp_path / there).mkdir(parents=True)
        prestage(SweepConfig.model_validate(parts), said.append)
        assert said == ([f"fetching {wanted}, where it is not there yet ..."] if wanted else [])
        said.clear()


def test_local_files_are_not_fetched(parts, tmp_path, monkeypatch):
    monkeypatch.setattr(connect.ray, "nodes", lambda: pytest.fail("nothing is to be fetched"))
    (tmp_path / "chats.jsonl").write_text('{"text": "Hello"}\n' * 40)
    parts["data"] = {"samples": 8, "mix": {"mine": 1.0}, "sources": {"mine": {"dataset": str(tmp_path / "chats.jsonl")}}}
    said: list[str] = []
    prestage(SweepConfig.model_validate(parts), said.append)
    assert said == []
