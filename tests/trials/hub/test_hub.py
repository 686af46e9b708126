"""Ids are resolved in the mirror folder first, also for lm-eval's stock tasks."""

import gzip
import os
import warnings
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest

from tests.factories.rows import local_source
from trials.errors import InputError
from trials.hub import fingerprint, http_retry
from trials.hub.hub import Hub, builtin_sources, find_source
from trials.spec import Data, Evaluation, Source
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
def test_stock_tasks_read_the_mirror(mirrored, evaluation):
    evaluation = Evaluation.model_validate(evaluation)
    check("role", evaluation, mirrored)
    for task in mirrored.build(evaluation).values():
        assert str(task.config.dataset_path).startswith(str(MIRROR.resolve()))


@pytest.mark.parametrize("name", ["alpaca", "gsm8k"])
def test_training_sources_read_the_mirror(mirrored, name):
    assert len(mirrored.hub.rows(name, builtin_sources()[name])) > 900


def test_id_without_a_folder_is_left_to_the_hub(tmp_path):
    assert Hub(tmp_path).locate("some/model") == "some/model"
    (tmp_path / "some" / "model").mkdir(parents=True)
    assert Hub(tmp_path).locate("some/model") == str(tmp_path / "some" / "model")


def test_missing_mirror_and_unknown_source_are_refused(tmp_path):
    with pytest.raises(InputError, match="is not a folder"):
        Hub(tmp_path / "none")
    with pytest.raises(InputError, match="no source 'gsm9k'; did you mean 'gsm8k'"):
        find_source(Data(samples=1, mix={"gsm9k": 1.0}), "gsm9k")


@pytest.mark.parametrize(("name", "near"), [("some/SmolLM2-Instuct", "some/SmolLM2-Instruct"), ("some/other", None)])
def test_misspelt_name_of_a_mirrors_model_is_one_line_at_once(tmp_path, monkeypatch, name, near):
    (tmp_path / "some" / "SmolLM2-Instruct").mkdir(parents=True)
    patience = http_retry.Patience(sleep=lambda seconds: pytest.fail("it waits for the hub"))
    monkeypatch.setattr(http_retry, "install", lambda: patience)

    def unreachable(*_: object, **__: object) -> None:
        assert patience.given_up == (near is not None)
        raise OSError("no network")

    monkeypatch.setattr("huggingface_hub.HfApi.repo_info", unreachable)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    hub = Hub(tmp_path)
    assert hub.near(name) == near
    if near is None:
        assert hub.commit(name, "model", None) is None
        return
    with pytest.raises(InputError, match=f"^base.model '{name}' is neither .*; did you mean '{near}', which the mirror has"):
        hub.commit(name, "model", None)


def test_name_near_the_mirrors_is_read_from_the_hub_that_has_it(tmp_path, monkeypatch):
    """A mirror with one size of a model forbids no other."""
    (tmp_path / "Qwen" / "Qwen2.5-0.5B").mkdir(parents=True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.HfApi.repo_info", lambda *_, **__: SimpleNamespace(sha="a" * 40))
    assert Hub(tmp_path).commit("Qwen/Qwen2.5-1.5B", "model", None) == "a" * 40


def test_missing_file_of_a_source_names_the_nearest_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "chats.jsonl").write_text("{}\n")
    with pytest.raises(InputError, match=r"data.sources.mine.dataset: no file chat.jsonl in .*; did you mean chats.jsonl\?$"):
        Hub().rows("mine", Source(dataset="chat.jsonl"))


def test_source_named_by_its_file_is_suggested():
    sources = {"mine": {"dataset": "data/chats.jsonl"}, "other": {"dataset": "x.csv"}}
    for name, meant in (("chats", "'mine'"), ("zzzzz", "'mine' or 'other'")):
        with pytest.raises(InputError, match=f"no source '{name}'; did you mean {meant}[?]"):
            find_source(Data.model_validate({"samples": 1, "mix": {name: 1.0}, "sources": sources}), name)


def test_folder_with_changed_files_is_read_again(tmp_path):
    import pandas as pd

    from trials.spec import Source

    folder = tmp_path / "some" / "data" / "train.parquet"
    folder.parent.mkdir(parents=True)
    source = Source(dataset="some/data", instruction="{{q}}", response="{{a}}")
    for answer in ("old", "new and longer"):
        pd.DataFrame({"q": ["?"], "a": [answer]}).to_parquet(folder)
        assert Hub(tmp_path).rows("mine", source)[0]["a"] == answer


def test_local_folder_never_replaces_the_data_of_a_stock_task_or_source(monkeypatch, tmp_path):
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


def test_training_split_that_is_the_test_split_is_found_on_real_data(mirrored):
    evaluation = Evaluation(task="gsm8k", metric="exact_match", filter="strict-match")
    assert same_split(evaluation, "openai/gsm8k", "main", "test", mirrored) == "gsm8k"
    assert same_split(evaluation, "openai/gsm8k", "main", "test[:50%]", mirrored) == "gsm8k"
    assert same_split(evaluation, "openai/gsm8k", "main", "train+test", mirrored) == "gsm8k"
    assert same_split(evaluation, "openai/gsm8k", None, "test", mirrored) == "gsm8k"
    assert same_split(evaluation, "openai/gsm8k", "main", "train", mirrored) is None


@pytest.mark.parametrize("count", [2, 5])
def test_packed_files_are_hashed_as_often_however_many_they_are(tmp_path, monkeypatch, count):
    pd.DataFrame({"q": ["a"], "a": ["b"]}).to_parquet(tmp_path / "rows.parquet")
    for number in range(count):
        (tmp_path / f"{number}.parquet.gz").write_bytes(gzip.compress((tmp_path / "rows.parquet").read_bytes()))
    hashed, sha256 = [], fingerprint.sha256
    monkeypatch.setattr(fingerprint, "sha256", lambda path: hashed.append(path) or sha256(path))
    assert len(Hub().rows("mine", local_source(str(tmp_path / "*.parquet.gz")))) == count
    assert len(hashed) == 2 * count
