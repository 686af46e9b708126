"""Ids are read from the mirror folder where it has them, by lm-eval's stock tasks too; a hub that is busy is waited for."""

import json
import os
import subprocess
import sys
import threading
import warnings
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.factories.busy_hub import BusyHub
from trials.errors import InputError
from trials.hub import http_retry
from trials.hub.hub import Hub, builtin_sources, find_source
from trials.spec import Data, Evaluation
from trials.tasks.tasks import Tasks, check, same_split

MIRROR = Path(os.environ.get("HUB_MIRROR", Path(__file__).parents[4] / "shared" / "hub"))


@pytest.fixture(scope="module")
def mirrored() -> Tasks:
    if not (MIRROR / "openai" / "gsm8k").is_dir():
        warnings.warn(
            f"no mirror of the real data at {MIRROR} (HUB_MIRROR names one): the stock tasks are not tried", stacklevel=1
        )
        pytest.skip(f"no mirror at {MIRROR}")
    return Tasks(Hub(MIRROR))


@pytest.mark.parametrize(
    "evaluation",
    [
        {"task": "hellaswag", "metric": "acc_norm", "documents": 5},
        {"task": "gsm8k", "metric": "exact_match", "filter": "strict-match", "shots": 2, "documents": 5},
        {"task": ["mmlu_college_computer_science", "mmlu_high_school_computer_science"], "metric": "acc", "documents": 200},
    ],
)
def test_the_stock_tasks_read_the_mirror(mirrored, evaluation):
    evaluation = Evaluation.model_validate(evaluation)
    check("role", evaluation, mirrored)
    for task in mirrored.build(evaluation).values():
        assert str(task.config.dataset_path).startswith(str(MIRROR.resolve()))


@pytest.mark.parametrize("name", ["alpaca", "gsm8k"])
def test_the_training_sources_read_the_mirror(mirrored, name):
    assert len(mirrored.hub.rows(name, builtin_sources()[name])) > 900


def test_a_training_split_that_is_also_the_test_split_is_found_on_real_data(mirrored):
    evaluation = Evaluation(task="gsm8k", metric="exact_match", filter="strict-match")
    assert same_split(evaluation, "openai/gsm8k", "main", "test", mirrored) == "gsm8k"
    assert same_split(evaluation, "openai/gsm8k", "main", "test[:50%]", mirrored) == "gsm8k"
    assert same_split(evaluation, "openai/gsm8k", "main", "train+test", mirrored) == "gsm8k"
    assert same_split(evaluation, "openai/gsm8k", None, "test", mirrored) == "gsm8k"
    assert same_split(evaluation, "openai/gsm8k", "main", "train", mirrored) is None


def test_an_id_that_no_folder_has_is_left_to_the_hub(tmp_path):
    assert Hub(tmp_path).locate("some/model") == "some/model"
    (tmp_path / "some" / "model").mkdir(parents=True)
    assert Hub(tmp_path).locate("some/model") == str(tmp_path / "some" / "model")


def test_a_mirror_that_is_no_folder_and_an_unknown_source_are_refused(tmp_path):
    with pytest.raises(InputError, match="is not a folder"):
        Hub(tmp_path / "none")
    with pytest.raises(InputError, match="no source 'gsm9k'; did you mean 'gsm8k'"):
        find_source(Data(samples=1, mix={"gsm9k": 1.0}), "gsm9k")


def test_a_folder_whose_files_changed_is_read_again(tmp_path):
    import pandas as pd

    from trials.spec import Source

    folder = tmp_path / "some" / "data" / "train.parquet"
    folder.parent.mkdir(parents=True)
    source = Source(dataset="some/data", instruction="{{q}}", response="{{a}}")
    for answer in ("old", "new and longer"):
        pd.DataFrame({"q": ["?"], "a": [answer]}).to_parquet(folder)
        assert Hub(tmp_path).rows("mine", source)[0]["a"] == answer


FROM_THE_HUB = """
import json, time
waits = []
time.sleep = waits.append
from trials import base
from trials.errors import InputError
from trials.hub import Hub
from trials.spec import Base, Evaluation, Source
from trials.tasks import Tasks

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
def test_a_hub_that_is_busy_is_waited_for_by_models_data_sets_and_tasks(from_a_busy_hub):
    from transformers import AutoTokenizer

    found = from_a_busy_hub
    assert found["tokens"] == AutoTokenizer.from_pretrained(BusyHub.folders)("How many")["input_ids"]
    assert found["weights"] > 0
    assert found["rows"] > 100
    assert found["documents"] > 100
    assert found["waits"]
    assert min(found["waits"]) >= 7, "sooner than Retry-After asks"
    asked = {path: times for path, times in BusyHub.asked.items() if "locked" not in path and "nothing" not in path}
    assert all(times >= 3 for times in asked.values()), "something was gone on without"


def test_what_the_hub_refuses_fails_at_once_in_one_line(from_a_busy_hub):
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
    """Stands in for the hub's HTTP client and for time: it answers what the test says."""

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

    def ask(self, *answers, method="GET"):
        self.answers, self.slept[:] = list(answers), []
        return self.sent(SimpleNamespace(method=method, url="http://hub")).status_code


def test_the_wait_grows_and_ends_and_nothing_waits_again_until_the_hub_has_answered():
    clock = Clock()
    assert clock.ask(503) == 503
    assert clock.slept[:5] == sorted(clock.slept[:5])
    assert 60 < sum(clock.slept) <= 600
    assert clock.ask(503) == 503
    assert clock.slept == []
    assert clock.ask(200) == 200
    assert clock.ask(503, ConnectionError(), 200) == 200
    assert len(clock.slept) == 2


def test_a_hub_that_never_answered_is_not_waited_for_as_long():
    clock = Clock()
    with pytest.raises(ConnectionError):
        clock.ask(ConnectionError())
    assert 0 < sum(clock.slept) <= 15


def test_what_cannot_be_sent_twice_is_sent_once():
    clock = Clock()
    assert clock.ask(503, 200, method="PUT") == 503
    assert clock.slept == []


def test_a_response_says_how_long_to_wait_as_a_number_a_date_or_a_limit():
    assert http_retry.requested_wait({"retry-after": "12"}) == 12
    later = format_datetime(datetime.now(UTC) + timedelta(seconds=100))
    assert 50 < http_retry.requested_wait({"retry-after": later}) <= 100
    assert http_retry.requested_wait({"retry-after": "soon"}) == 0
    assert http_retry.requested_wait({"ratelimit": '"api";r=0;t=55'}) == 55
    assert http_retry.requested_wait({"ratelimit": '"api";r=3;t=55'}) == 0
    assert http_retry.requested_wait({}) == 0


def test_a_folder_is_not_taken_for_the_data_of_a_stock_task_or_source(monkeypatch, tmp_path):
    (tmp_path / "openai" / "gsm8k").mkdir(parents=True)
    (tmp_path / "openai" / "gsm8k" / "main.jsonl").write_text("{}")
    monkeypatch.chdir(tmp_path)
    source = builtin_sources()["gsm8k"]
    assert source.dataset == "openai/gsm8k"
    with pytest.raises(InputError, match="source 'gsm8k' reads openai/gsm8k from the hub"):
        Hub().rows("gsm8k", source)
    with pytest.raises(InputError, match="task 'gsm8k' reads openai/gsm8k from the hub"):
        Tasks(Hub()).build(Evaluation(task="gsm8k", metric="exact_match", filter="strict-match"))
    Hub().refuse_lookalike("task", "no/such")
    Hub(tmp_path).refuse_lookalike("task", "openai/gsm8k")  # the mirror is meant
