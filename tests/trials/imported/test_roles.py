"""Roles of imported results: from tasks, presets and --role."""

import pytest

from tests.factories.lm_eval_folder import shares, write
from trials.errors import InputError
from trials.imported import folder, roles


@pytest.fixture
def base(tmp_path):
    write(tmp_path, {"pretrained": "m"}, {"gsm": shares(3), "swag": shares(1)})
    return folder.models(tmp_path)[0]


def test_each_task_is_a_role_with_its_first_metric(base):
    found = roles.evaluations(base, [])
    assert {role: (one.task, one.metric, one.filter, one.shots) for role, one in found.items()} == {
        "gsm": ("gsm", "exact_match", "strict-match", 2),
        "swag": ("swag", "acc", "none", 0),
    }


def test_known_task_takes_its_presets_metric_filters_and_marker(base, monkeypatch):
    known = {"task": "gsm", "metric": "exact_match", "filter": "strict-match", "flexible": "flexible-extract", "marker": "####"}
    monkeypatch.setattr(roles, "benchmarks", lambda: {"gsm8k": {**known, "shots": 5}})
    one = roles.evaluations(base, ["math=gsm"])["math"]
    assert (one.flexible, one.marker, one.shots) == ("flexible-extract", "####", 2)  # shots are those that ran
    other = roles.evaluations(base, ["math=gsm:exact_match,flexible-extract"])["math"]
    assert (other.filter, other.marker) == ("flexible-extract", None)


def test_preset_whose_filter_was_not_measured_is_not_taken(base, monkeypatch):
    monkeypatch.setattr(roles, "benchmarks", lambda: {"gsm8k": {"task": "gsm", "metric": "exact_match", "filter": "mine"}})
    assert roles.evaluations(base, ["math=gsm"])["math"].filter == "strict-match"


def test_group_is_one_role_over_its_tasks(tmp_path):
    right = {"swag": shares(1), "gsm": shares(3)}
    write(tmp_path, {"pretrained": "m"}, right, group_subtasks={"mmlu-x": ["swag", "gsm"]})
    (model,) = folder.models(tmp_path)
    with pytest.raises(InputError, match="the tasks swag, gsm have no metric in common"):
        roles.evaluations(model, [])
    assert list(roles.evaluations(model, ["a=swag"])) == ["a"]
    write(tmp_path, {"pretrained": "m"}, {"swag": shares(1)}, group_subtasks={"mmlu-x": ["swag"]})
    assert roles.evaluations(folder.models(tmp_path)[0], [])["mmlu_x"].task == "swag"


def test_limited_run_is_no_whole_benchmark(tmp_path):
    write(tmp_path, {"pretrained": "m"}, {"gsm": shares(3)}, **{"n-samples": {"gsm": {"original": 900, "effective": 60}}})
    one = roles.evaluations(folder.models(tmp_path)[0], [])["gsm"]
    assert (one.documents, one.fewshot) == (60, "stock")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("math", "a role reads --role NAME=TASK"),
        ("math=gsm8k", "m has no task 'gsm8k'; it has gsm, swag"),
        ("math=gsm:acc", "gsm measures exact_match,strict-match; exact_match,flexible-extract; not acc,none"),
        ("math=gsm:exact_match,strict", "not exact_match,strict "),
        ("ma th=gsm", "a role is a plain word"),
        ("learning=gsm", "names what the training did"),
    ],
)
def test_unusable_role_is_one_line(given, expected, base):
    with pytest.raises(InputError, match=expected) as caught:
        roles.evaluations(base, [given])
    assert "\n" not in str(caught.value)


def test_two_roles_of_one_name_are_refused(base):
    with pytest.raises(InputError, match="two roles have the same name"):
        roles.evaluations(base, ["a=gsm", "a=swag"])
