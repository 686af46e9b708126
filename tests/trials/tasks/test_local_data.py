"""Data files of a task are found beside its YAML, whatever the working folder."""

import pytest

from tests.factories.own_tasks import SHOP, shop
from trials.errors import InputError
from trials.tasks.folder import TaskFolder
from trials.tasks.local_data import data_files, data_folder, here, outside


def of(folder, text: str):
    (folder / "sub").mkdir(exist_ok=True)
    (folder / "sub" / "one.yaml").write_text(f"task: one\n{text}\n")
    found = TaskFolder(folder)
    return found, found.leaves("one")[0]


def test_files_are_beside_the_file_that_names_them():
    folder = TaskFolder(SHOP)
    (leaf,) = folder.leaves("shop_sums")
    assert data_files(folder, leaf) == {
        "train": [SHOP / "data" / "examples.jsonl"],
        "test": [SHOP / "data" / "sums.jsonl"],
    }
    assert here(folder, leaf)


@pytest.mark.parametrize("named", ["rows.jsonl", "'*.jsonl'", "[rows.jsonl]", "{train: rows.jsonl}"])
def test_own_folder_goes_before_the_root(tmp_path, named):
    (tmp_path / "rows.jsonl").write_text("{}")
    folder, leaf = of(tmp_path, f"dataset_path: json\ndataset_kwargs: {{data_files: {named}}}")
    assert data_files(folder, leaf) == {"train": [tmp_path / "rows.jsonl"]}
    (tmp_path / "sub" / "rows.jsonl").write_text("{}")
    assert data_files(folder, leaf) == {"train": [tmp_path / "sub" / "rows.jsonl"]}


def test_folder_of_data_is_read_too(tmp_path):
    (tmp_path / "rows").mkdir()
    (tmp_path / "rows" / "a.csv").write_text("a")
    folder, leaf = of(tmp_path, "dataset_path: csv\ndataset_kwargs: {data_dir: rows}")
    assert data_files(folder, leaf) == {"train": [tmp_path / "rows" / "a.csv"]}
    folder, leaf = of(tmp_path, "dataset_path: rows")
    assert data_folder(folder, leaf) == tmp_path / "rows"
    assert data_files(folder, leaf) is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("dataset_path: json\ndataset_kwargs: {data_files: no.jsonl}", "one.yaml:3: data_files no.jsonl: no such file in"),
        ("dataset_path: json\ndataset_kwargs: {data_files: 'https://a/b.jsonl'}", "no data from the network"),
        ("dataset_path: json\ndataset_kwargs: {data_files: ../../outside.jsonl}", "is outside the task folder"),
        ("dataset_path: json", "needs dataset_kwargs"),
        ("dataset_path: pandas", "one.yaml:2: dataset_path pandas: a task reads local files as json, csv"),
    ],
)
def test_data_that_cannot_be_had_are_one_line_with_their_place(tmp_path, text, expected):
    (tmp_path / "outside.jsonl").write_text("{}")
    (tmp_path / "tasks").mkdir()
    with pytest.raises(InputError) as caught:
        data_files(*of(tmp_path / "tasks", text))
    assert expected in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_absolute_names_are_outside(tmp_path):
    folder = shop(tmp_path)
    (tmp_path / "far.jsonl").write_text("{}")
    (folder / "far.yaml").write_text(f"task: far\ndataset_path: json\ndataset_kwargs: {{data_files: {tmp_path}/far.jsonl}}\n")
    assert list(outside(TaskFolder(folder))) == [("outside/000000", tmp_path / "far.jsonl")]
