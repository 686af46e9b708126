"""A folder of tasks is read without running its code, and what is wrong with it has a place."""

import dataclasses
import sys

import pytest
from lm_eval.config.group import GroupConfig
from lm_eval.tasks import TaskManager

from tests.factories.own_tasks import SHOP, shop
from trials.errors import InputError
from trials.hub import fingerprint
from trials.tasks.folder import GROUP_KEYS, Entry, TaskFolder, files, leaves, located, opened, shipped_name
from trials.tasks.task_yaml import parse


def refusal(folder) -> str:
    with pytest.raises(InputError) as caught:
        TaskFolder(folder)
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


def test_names_are_those_of_lm_evals_own_index():
    index = TaskManager(include_path=str(SHOP), include_defaults=False).task_index
    assert {name: entry.kind.name for name, entry in index.items()} == {
        name: entry.kind.upper() for name, entry in TaskFolder(SHOP).entries.items()
    }


def test_keys_of_a_group_are_those_of_lm_eval():
    assert {field.name for field in dataclasses.fields(GroupConfig)} == GROUP_KEYS


def test_group_and_tag_have_the_single_tasks():
    folder = TaskFolder(SHOP)
    assert [leaf.name for leaf in folder.leaves("shop_choices")] == ["shop_tools", "shop_visits"]
    assert [leaf.name for leaf in folder.leaves("shop_words")] == ["shop_notes", "shop_visits"]


def test_group_overrides_its_members_from_the_outside_in():
    entries = {
        "task": Entry("task", "task", config={"task": "task", "num_fewshot": 0, "repeats": 1}),
        "inner": Entry("inner", "group", config={"group": "inner", "task": ["task"], "num_fewshot": 1, "repeats": 2}),
        "outer": Entry(
            "outer",
            "group",
            config={
                "group": "outer",
                "num_fewshot": 3,
                "task": ["inner", {"task": "task", "num_fewshot": 4}, {"task": "new", "dataset_path": "json"}],
            },
        ),
    }
    through_group, by_itself, inline = leaves("outer", entries.get)
    assert (through_group.setting("num_fewshot"), through_group.setting("repeats")) == (3, 2)
    assert by_itself.setting("num_fewshot") == 4
    assert (inline.name, inline.setting("dataset_path")) == ("outer::new", "json")


def test_first_code_has_file_and_line_and_is_not_imported(tmp_path):
    place = shop(tmp_path)
    folder = TaskFolder(place)
    assert folder.code("shop_distance") == f"{place / 'distance.yaml'}:5: !function metrics.distance"
    assert folder.code("shop_choices") is None
    assert str(place / "metrics") not in sys.modules  # lm-eval's name of the module


def test_code_of_an_included_file_and_of_a_class_counts(tmp_path):
    (tmp_path / "common.yaml").write_text("process_docs: !function utils.docs\n")
    (tmp_path / "a.yaml").write_text("task: a\ninclude: common.yaml\n")
    (tmp_path / "b.yaml").write_text("task: b\nclass: !function utils.Task\n")
    (tmp_path / "c.yaml").write_text("group: c\ntask: [b]\n")
    folder = TaskFolder(tmp_path)
    assert folder.code("a") == f"{tmp_path / 'common.yaml'}:1: !function utils.docs"
    assert folder.code("c") == f"{tmp_path / 'b.yaml'}:2: !function utils.Task"


def test_link_to_yaml_or_code_outside_the_folder_is_refused(tmp_path):
    (tmp_path / "far").mkdir()
    (tmp_path / "far" / "t.yaml").write_text("task: t\n")
    place = shop(tmp_path)
    for name in ("t.yaml", "t.py"):
        (place / name).symlink_to(tmp_path / "far" / "t.yaml")
        assert refusal(place).startswith(f"{place / name}: is a link to {tmp_path}/far/t.yaml, outside the task folder")
        (place / name).unlink()
    (place / "data" / "linked.jsonl").symlink_to(tmp_path / "far" / "t.yaml")  # data travel as a copy
    (place / "same.py").symlink_to(place / "metrics.py")
    TaskFolder(place)


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ({}, "no *.yaml file in this folder names a task or a group"),
        ({"a.yml": "task: a\n"}, "lm-eval reads *.yaml: rename a.yml"),
        ({"a.yaml": "task: a\n", "b.yaml": "task: [a\n"}, "b.yaml:2:1: not YAML"),
        ({"a.yaml": "task: a\n", "b.yaml": "dataset_path: x\ntask: a\n"}, "b.yaml:2: 'a' is already the name of"),
        ({"a.yaml": "task: a\ninclude: b.yaml\n"}, "a.yaml:2: includes b.yaml, but there is no file"),
        ({"a.yaml": "task: a\ninclude: ../b.yaml\n"}, "a.yaml:2: includes ../b.yaml, outside the task folder"),
        ({"a.yaml": "task: a\ninclude: b.yaml\n", "b.yaml": "include: a.yaml\n"}, "includes itself"),
        (
            {"a.yaml": "task: a\ninclude: .b.yaml\n", ".b.yaml": "x: 1\n"},
            "a.yaml:2: includes .b.yaml: hidden files are neither",
        ),
        ({"a.yaml": "task: a\n1: 2\n"}, "a.yaml:2: a key of a task is a text, but got 1"),
        ({"a.yaml": "task: a\ntag: {b: 1}\n"}, "a.yaml:2: a tag is a text, or a list of texts, but got {'b': 1}"),
        ({"a.yaml": "group: a\ntask: [null]\n"}, "a.yaml:2: a group's tasks are names, or keys and values, but got [None]"),
        ({"a.yaml": "group: a\ntask: [1]\n"}, "a.yaml:2: a group's tasks are names, or keys and values, but got [1]"),
        ({"a.yaml": "group: a\ntask: [{group: [x], task: [t]}]\n"}, "a.yaml:2: a group's name is a text, but got ['x']"),
        ({"a.yaml": "group: a\ntask: [{group: x, task: [2]}]\n"}, "a.yaml:2: a group's tasks are names, or keys and values"),
        ({"a.yaml": "group: a\ntask: [{num_fewshot: 2}]\n"}, "a.yaml:2: a member of a group names a task by a text"),
        ({"a.yaml": "task: 3\n"}, "a.yaml:1: a task's name is a text, but got 3"),
    ],
)
def test_folder_that_cannot_be_used_is_one_line(tmp_path, written, expected):
    for name, text in written.items():
        (tmp_path / name).write_text(text)
    assert expected in refusal(tmp_path)


def test_folder_whose_files_are_links_within_it_is_read(tmp_path):
    """As Kubernetes mounts a ConfigMap."""
    place = shop(tmp_path)
    (place / "..now").mkdir()
    for file in [*place.glob("*.yaml"), place / "metrics.py"]:
        file.rename(place / "..now" / file.name)
        file.symlink_to(place / "..now" / file.name)
    folder = TaskFolder(place)
    assert {"shop_sums", "shop_distance"} <= folder.entries.keys()
    (function, _) = parse(place / "distance.yaml").functions
    assert folder.pinned(function.file) and function.file.is_file()


def test_unknown_name_is_refused_with_the_nearest():
    with pytest.raises(InputError, match="has no task 'shop_sum'; did you mean 'shop_sums'"):
        TaskFolder(SHOP).leaves("shop_sum")


def test_group_within_itself_ends(tmp_path):
    (tmp_path / "a.yaml").write_text("group: a\ntask: [a]\n")
    with pytest.raises(InputError, match="contains itself"):
        TaskFolder(tmp_path).leaves("a")


def test_hidden_files_and_caches_are_no_part_of_the_folder(tmp_path):
    folder = shop(tmp_path)
    before = files(folder)
    for name in (".env", "__pycache__/metrics.cpython-311.pyc", ".git/config", "metrics.pyc"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("x")
    assert files(folder) == before


def test_copy_that_travelled_goes_before_the_folder_itself(tmp_path, monkeypatch):
    copy = tmp_path / "package" / shipped_name(str(SHOP))
    copy.mkdir(parents=True)
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path / "package")])
    assert located(str(SHOP)) == copy
    assert located(str(tmp_path)) == tmp_path


def test_folder_is_read_again_only_after_a_change(tmp_path):
    folder = shop(tmp_path)
    first = opened(str(folder))
    assert opened(str(folder)) is first
    (folder / "visits.yaml").write_text((folder / "visits.yaml").read_text().replace("task: shop_visits", "task: trips"))
    assert {"trips"} == opened(str(folder)).entries.keys() - first.entries.keys()


@pytest.mark.parametrize(("named", "expected"), [("nowhere", "there is no such folder"), ("file", "this is a file")])
def test_what_is_no_folder_is_refused(tmp_path, named, expected):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=expected):
        opened(str(tmp_path / named))


def test_lost_folder_of_a_file_of_questions_says_how_it_is_made_again():
    with pytest.raises(InputError, match=r"no such folder; it was made of a file of questions: use the config that names"):
        opened(str(fingerprint.cache("questions") / "sums-0123456789abcdef"))
