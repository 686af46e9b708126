"""Requests to a busy hub are retried; refused ones are not."""

import json
import os
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.factories.busy_hub import BusyHub
from trials.hub import http_retry
from trials.hub.hub import Hub

FROM_THE_HUB = """
import json, time
waits = []
time.sleep = waits.append
from trials.models import base
from trials.errors import InputError
from trials.hub.hub import Hub
from trials.spec import Base, Evaluation, Source
from trials.tasks.tasks import Tasks

hub = Hub()
hub._roots = []  # nothing bundled: all of it comes from the server
found = {}
loaded = base.load(Base(model="some/model", dtype="bfloat16"), hub)
found["tokens"] = loaded.tokenizer("How many")["input_ids"]
found["weights"] = sum(weight.numel() for weight in loaded.model.parameters())
found["rows"] = len(hub.rows("x", Source(dataset="some/gsm8k", config="main", instruction="", response="")))
task = Tasks(hub).build(Evaluation(task="micro_gsm", metric="exact_match"))["micro_gsm"]
found["documents"] = len(task.eval_docs)
found["waits"], waits[:] = list(waits), []
found["refused"] = []
for model in ("some/locked", "some/nothing"):
    try:
        base.check(Base(model=model, dtype="bfloat16"), hub)
    except InputError as error:
        found["refused"].append(str(error))
try:
    hub.rows("x", Source(dataset="some/nothing", instruction="", response=""))
except InputError as error:
    found["refused"].append(str(error))
found["waits for the refused"] = waits
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def from_a_busy_hub(tmp_path_factory):
    server = ThreadingHTTPServer(("127.0.0.1", 0), BusyHub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    folder = tmp_path_factory.mktemp("busy")
    environment = {
        **os.environ,
        "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}",
        "HF_HOME": str(folder),
        "HF_HUB_OFFLINE": "0",
        "PYTHONPATH": str(Path(__file__).parents[3]),
    }
    command = [sys.executable, "-c", FROM_THE_HUB]
    try:
        ran = subprocess.run(command, cwd=folder, env=environment, check=False, capture_output=True, text=True)
    finally:
        server.shutdown()
    assert ran.returncode == 0, ran.stderr[-2000:]
    return json.loads(ran.stdout.splitlines()[-1])


@pytest.mark.slow
def test_models_data_sets_and_tasks_wait_for_a_busy_hub(from_a_busy_hub):
    from transformers import AutoTokenizer

    found = from_a_busy_hub
    assert found["tokens"] == AutoTokenizer.from_pretrained(BusyHub.folders)("How many")["input_ids"]
    assert found["weights"] > 0
    assert found["rows"] > 100
    assert found["documents"] > 100
    assert found["waits"]
    assert min(found["waits"]) >= 7, "earlier than Retry-After"
    asked = {path: times for path, times in BusyHub.asked.items() if "locked" not in path and "nothing" not in path}
    assert all(times >= 3 for times in asked.values()), "something was gone on without"


def test_refused_request_fails_at_once_in_one_line(from_a_busy_hub):
    assert from_a_busy_hub["waits for the refused"] == []
    lines = from_a_busy_hub["refused"]
    assert [line.partition(" is ")[0] for line in lines] == [
        "base.model 'some/locked'",
        "base.model 'some/nothing'",
        "data set of source 'x', 'some/nothing'",
    ]
    assert "is gated: accept its licence at https://huggingface.co/some/locked" in lines[0]
    assert not any("\n" in line for line in lines)


class Clock:
    """Replaces the hub's HTTP client and time: it gives the answers of the test."""

    def __init__(self):
        self.slept: list[float] = []
        self.patience = http_retry.Patience(self.slept.append)
        self.answers: list = []
        self.sent = self.patience.around(self.send, (ConnectionError,), lambda request: request.method == "GET")

    def send(self, request):
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return SimpleNamespace(status_code=answer, headers={}, close=lambda: None)

    def request(self, *answers, method="GET"):
        self.answers, self.slept[:] = list(answers), []
        return self.sent(SimpleNamespace(method=method, url="http://hub")).status_code


def test_wait_grows_and_ends_until_the_hub_answers_again():
    clock = Clock()
    assert clock.request(503) == 503
    assert clock.slept[:5] == sorted(clock.slept[:5])
    assert 60 < sum(clock.slept) <= 600
    assert clock.request(503) == 503
    assert clock.slept == []
    assert clock.request(200) == 200
    assert clock.request(503, ConnectionError(), 200) == 200
    assert len(clock.slept) == 2


def test_hub_that_never_answered_gets_a_short_wait():
    clock = Clock()
    with pytest.raises(ConnectionError):
        clock.request(ConnectionError())
    assert 0 < sum(clock.slept) <= 15


def test_beside_a_mirror_an_unreachable_hub_gets_no_wait_and_a_busy_one_its_usual_wait(tmp_path, monkeypatch):
    clock = Clock()
    monkeypatch.setattr(http_retry, "install", lambda: clock.patience)
    Hub(tmp_path)
    with pytest.raises(ConnectionError):
        clock.request(ConnectionError())
    assert clock.slept == []
    assert clock.request(200) == 200
    assert clock.request(503, ConnectionError(), 200) == 200
    assert len(clock.slept) == 2


def test_connection_that_is_given_up_is_retried_by_no_library(monkeypatch):
    from huggingface_hub.errors import OfflineModeIsEnabled
    from huggingface_hub.utils import httpx

    def fails(request):
        raise httpx.ConnectError("no network", request=request)

    made = []
    monkeypatch.setattr("huggingface_hub.set_client_factory", made.append)
    monkeypatch.setattr("huggingface_hub.utils._http.default_client_factory", lambda: SimpleNamespace(send=fails))
    http_retry.install.__wrapped__().given_up = True
    client = made[0]()
    with pytest.raises(OfflineModeIsEnabled, match=r"huggingface\.co cannot be reached: no network"):
        client.send(httpx.Request("HEAD", "https://huggingface.co/some/model"))
    with pytest.raises(httpx.ConnectError):
        client.send(httpx.Request("HEAD", "https://elsewhere.org/some/model"))


def test_unrepeatable_request_is_sent_once():
    clock = Clock()
    assert clock.request(503, 200, method="PUT") == 503
    assert clock.slept == []


def test_wait_is_read_from_a_number_a_date_or_a_limit():
    assert http_retry.requested_wait({"retry-after": "12"}) == 12
    later = format_datetime(datetime.now(UTC) + timedelta(seconds=100))
    assert 50 < http_retry.requested_wait({"retry-after": later}) <= 100
    assert http_retry.requested_wait({"retry-after": "soon"}) == 0
    assert http_retry.requested_wait({"ratelimit": '"api";r=0;t=55'}) == 55
    assert http_retry.requested_wait({"ratelimit": '"api";r=3;t=55'}) == 0
    assert http_retry.requested_wait({}) == 0
