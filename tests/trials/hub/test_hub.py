"""Ids are resolved in the mirror folder first, also for lm-eval's stock tasks."""

import gzip
import os
import warnings
from pathlib import Path

import pandas as pd
import pytest

from tests.factories.rows import local_source
from trials.errors import InputError
from trials.hub import fingerprint
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
