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
        shown = shown.replace(f"'{function}'", f"'{SHOP / function}'")
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
