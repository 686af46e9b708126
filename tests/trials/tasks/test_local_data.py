"""Data files of a task are found beside its YAML, whatever the working folder."""

import pytest
from datasets.packaged_modules import _PACKAGED_DATASETS_MODULES

from tests.factories.own_tasks import SHOP, shop
from trials.errors import InputError
from trials.tasks.folder import TaskFolder
from trials.tasks.local_data import BUILDERS, data_files, data_folder, here, outside


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
    folder, leaf = of(tmp_path, f"dataset_path: json\ndataset_kwargs: {{data_files: {named}}}")
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
        (
            "dataset_path: json\ndataset_kwargs: {data_files: .rows.jsonl}",
            "data_files .rows.jsonl: hidden files are neither pinned",
        ),
        ("dataset_path: json\ndataset_kwargs: {data_files: {test: ~}}", "one.yaml:3: data_files: expected a file, a list of"),
        ("dataset_path: json\ndataset_kwargs: {data_files: {test: 5}}", "one.yaml:3: data_files: expected a file, a list of"),
        ("dataset_path: json\ndataset_kwargs: {data_dir: [a]}", "one.yaml:3: data_dir: expected the name of a folder"),
        ("dataset_path: json\ndataset_kwargs: [a]", "one.yaml:3: dataset_kwargs: expected keys and values"),
        ("dataset_path: json", "needs dataset_kwargs"),
        ("dataset_path: {a: 1}", "one.yaml:2: dataset_path: expected a text, but got {'a': 1}"),
        ("dataset_path: ../../rows", "one.yaml:2: dataset_path ../../rows: "),
        ("dataset_path: .rows", "one.yaml:2: dataset_path .rows: hidden files are neither pinned"),
        ("dataset_path: https://a/b", "one.yaml:2: dataset_path https://a/b: no data from the network by URL"),
        (
            "dataset_path: org/rows\ndataset_kwargs: {data_files: /a.jsonl}",
            "one.yaml:3: /a.jsonl is outside the data set org/rows",
        ),
        ("dataset_path: org/rows\ndataset_kwargs: {data_files: [a, 'hf://b/c']}", "hf://b/c is outside the data set org/rows"),
        ("dataset_path: org/rows\ndataset_kwargs: {data_dir: ../x}", "../x is outside the data set org/rows"),
        ("dataset_path: conll\ndataset_kwargs: {data_files: a.conll}", "dataset_path conll: a task reads local files as json"),
        ("dataset_path: pandas", "one.yaml:2: dataset_path pandas: a task reads local files as json, csv"),
    ],
)
def test_data_that_cannot_be_had_are_one_line_with_their_place(tmp_path, text, expected):
    for name in ("outside.jsonl", "tasks/.rows.jsonl", "tasks/.rows/a.jsonl", "rows/a.jsonl"):
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_text("{}")
    with pytest.raises(InputError) as caught:
        data_files(*of(tmp_path / "tasks", text))
    assert expected in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("name", sorted(_PACKAGED_DATASETS_MODULES.keys() - set(BUILDERS)))
def test_every_other_builder_of_datasets_is_refused(tmp_path, name):
    with pytest.raises(InputError, match=f"dataset_path {name}: a task reads local files as"):
        data_files(*of(tmp_path, f"dataset_path: {name}"))


def test_own_task_of_lm_eval_keeps_its_data(tmp_path):
    (tmp_path / "g.yaml").write_text("group: g\ntask: [{task: hellaswag, dataset_path: json}]\n")
    folder = TaskFolder(tmp_path)
    with pytest.raises(InputError, match="a group gives hellaswag, a task of lm-eval's own, other data"):
        data_files(folder, folder.leaves("g")[0])


def test_code_makes_data_from_settings_of_its_own(tmp_path):
    assert data_files(*of(tmp_path, "class: !function a.B\ndataset_kwargs: {data_files: 3, data_dir: /far}")) is None


def test_pattern_leaves_hidden_files_out(tmp_path):
    for name in ("rows/a.jsonl", "rows/.a.jsonl", "rows/.ipynb_checkpoints/b.jsonl"):
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_text("{}")
    assert data_files(*of(tmp_path, "dataset_path: json\ndataset_kwargs: {data_dir: rows}")) == {
        "train": [tmp_path / "rows" / "a.jsonl"]
    }


@pytest.mark.parametrize(
    "text",
    [
        "dataset_path: FOLDER",
        "dataset_path: json\ndataset_kwargs: {data_files: 'FOLDER/*.jsonl'}",
        "dataset_path: json\ndataset_kwargs: {data_dir: FOLDER}",
        "dataset_path: json\ndataset_kwargs: {data_files: $FAR/far.jsonl}",
    ],
)
def test_absolute_folders_and_patterns_are_outside(tmp_path, monkeypatch, text):
    (tmp_path / "far" / ".git").mkdir(parents=True)
    for name in (".git/far.jsonl", "far.jsonl"):
        (tmp_path / "far" / name).write_text("{}")
    monkeypatch.setenv("FAR", str(tmp_path / "far"))
    (tmp_path / "tasks").mkdir()
    folder, _ = of(tmp_path / "tasks", text.replace("FOLDER", f"{tmp_path}/far"))
    ((name, path),) = outside(folder)
    assert path == tmp_path / "far" / "far.jsonl"
    assert name.startswith("outside/000000")


def test_data_that_a_group_gives_its_member_are_outside(tmp_path):
    (tmp_path / "far.jsonl").write_text("{}")
    folder = shop(tmp_path)
    kwargs = f"dataset_kwargs: {{data_files: {{test: {tmp_path}/far.jsonl}}}}"
    (folder / "g.yaml").write_text(f"group: g\ntask: [{{task: shop_visits, {kwargs}}}]\n")
    assert list(outside(TaskFolder(folder))) == [("outside/000000", tmp_path / "far.jsonl")]


def test_absolute_names_are_outside(tmp_path):
    folder = shop(tmp_path)
    (tmp_path / "far.jsonl").write_text("{}")
    (folder / "far.yaml").write_text(f"task: far\ndataset_path: json\ndataset_kwargs: {{data_files: {tmp_path}/far.jsonl}}\n")
    assert list(outside(TaskFolder(folder))) == [("outside/000000", tmp_path / "far.jsonl")]
