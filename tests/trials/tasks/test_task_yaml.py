"""A task's file is read as lm-eval reads it, and nothing in it runs."""

import pytest
from lm_eval.tasks._yaml_loader import load_yaml

from tests.factories.own_tasks import SHOP
from trials.errors import InputError
from trials.tasks.task_yaml import Function, parse


@pytest.mark.parametrize("file", sorted(SHOP.glob("*.yaml")), ids=lambda path: path.stem)
def test_values_are_those_of_lm_eval(file):
    expected = load_yaml(file, resolve_func=False, recursive=False)
    shown = str(parse(file).data)
    for function in parse(file).functions:  # lm-eval puts the folder before a function that it does not import
        shown = shown.replace(repr(function), f"'{SHOP / function}'")
    assert shown == str(expected)


def test_function_has_its_line(tmp_path):
    path = tmp_path / "task.yaml"
    path.write_text("task: a\nmetric_list:\n  - metric: !function utils.f\n")
    (function,) = parse(path).functions
    assert (function, function.line) == (Function("utils.f"), 3)
    assert parse(path).lines == {"task": 1, "metric_list": 2}


@pytest.mark.parametrize("text", ["task: [a\n", "task: !!python/name:os.system\n", "a: b: c\n", "task: !shell ls\n"])
def test_what_is_no_yaml_is_one_line_with_its_place(tmp_path, text):
    path = tmp_path / "task.yaml"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        parse(path)
    assert str(caught.value).startswith(f"{path}:") and "not YAML" in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    "text",
    [
        "{!function a.f : 1}",
        "!!pairs [a: !function a.f]",
        "!!omap [a: !function a.f]",
        "!!set {? !function a.f}",
        "{b: &x {c: !function a.f}, <<: *x, c: null}",
    ],
)
def test_function_is_found_wherever_it_stands(tmp_path, text):
    path = tmp_path / "task.yaml"
    path.write_text(f"task: a\nmetadata: {text}\n")
    assert [(str(one), one.place) for one in parse(path).functions] == [("a.f", f"{path}:2")]


def test_key_twice_in_a_mapping_is_refused_with_its_place(tmp_path):
    path = tmp_path / "task.yaml"
    path.write_text("task: a\nprocess_docs: !function a.f\nprocess_docs: null\n")
    with pytest.raises(InputError, match=r"task.yaml:3:1: not YAML: the key 'process_docs' twice in a mapping"):
        parse(path)
    path.write_text("a: &a {x: 1}\nb: &b {y: 2}\nc: {<<: *a, <<: *b, x: 3}\n")
    assert parse(path).data["c"] == {"x": 3, "y": 2}


def test_function_has_the_file_that_lm_eval_imports(tmp_path):
    (tmp_path / "sub").mkdir()
    path = tmp_path / "sub" / "task.yaml"
    path.write_text("x: !function pack.mod.f\n")
    assert parse(path).functions[0].file == tmp_path / "sub" / "pack" / "mod.py"
