"""Models, tasks and runs are found in what lm-eval wrote."""

import json

import pytest

from tests.factories.lm_eval_folder import LATER, base_and_tunes, shares, write
from trials.errors import InputError
from trials.imported import folder


def test_models_are_found_by_the_name_of_adapter_or_weights(tmp_path):
    assert [model.name for model in folder.models(base_and_tunes(tmp_path))] == ["me/careful", "me/greedy", "org/base"]


def test_numbers_in_names_are_sorted_as_numbers(tmp_path):
    for number in (10, 2, 1):
        write(tmp_path, {"pretrained": f"tune-{number}"}, {"gsm": shares(1)})
    assert [model.name for model in folder.models(tmp_path)] == ["tune-1", "tune-2", "tune-10"]


def test_newest_run_of_each_task_counts(tmp_path):
    write(tmp_path, {"pretrained": "m"}, {"gsm": shares(1), "swag": shares(1)})
    write(tmp_path, {"pretrained": "m"}, {"gsm": shares(2)}, LATER)
    (model,) = folder.models(tmp_path)
    assert {task: run.time == LATER for task, run in model.runs.items()} == {"gsm": True, "swag": False}
    assert model.runs["gsm"].metrics("gsm")["exact_match,strict-match"] == 2 / 60


def test_tasks_of_one_model_in_several_folders_are_together(tmp_path):
    write(tmp_path / "a", {"pretrained": "m"}, {"gsm": shares(1)})
    write(tmp_path / "b", {"pretrained": "m"}, {"swag": shares(1)})
    (model,) = folder.models(tmp_path)
    assert set(model.runs) == {"gsm", "swag"}


def test_same_name_and_task_in_two_folders_are_two_models(tmp_path):
    for place in ("a", "b"):
        write(tmp_path / place, {"pretrained": "./merged"}, {"gsm": shares(1)})
    assert [model.name for model in folder.models(tmp_path)] == ["./merged in a/.__merged", "./merged in b/.__merged"]


def test_group_has_the_leaves_of_its_groups(tmp_path):
    groups = {"both": ["inner", "swag"], "inner": ["gsm"], "loop": ["loop"]}
    write(tmp_path, {"pretrained": "m"}, {"gsm": shares(1), "swag": shares(1)}, group_subtasks=groups)
    (model,) = folder.models(tmp_path)
    assert model.leaves("both") == ["swag", "gsm"]
    assert model.tops() == ["both"]


def test_arguments_of_older_versions_are_read_and_hold_no_secret(tmp_path):
    config = {"model_args": "pretrained=m,dtype=float16,token=hf_abcdefghijklmnop"}
    write(tmp_path, {"pretrained": "m"}, {"gsm": shares(1)}, config=config)
    (model,) = folder.models(tmp_path)
    assert model.newest.arguments == {"pretrained": "m", "dtype": "float16", "token": "***"}


def test_output_path_that_is_a_file_is_found(tmp_path):
    place = write(tmp_path, {"pretrained": "m"}, {"gsm": shares(1)})
    results = next(place.glob("results_*"))
    results.rename(results.with_name(results.name.replace("results_", "mine_")))
    assert folder.models(tmp_path)[0].runs["gsm"].samples("gsm").exists()


@pytest.mark.parametrize(
    ("content", "expected"), [("{", "not whole JSON"), ("[1]", "no results of lm-eval in it"), ("{}", "no results of lm-eval")]
)
def test_damaged_or_foreign_results_are_one_line(content, expected, tmp_path):
    (tmp_path / "results_2026-05-01T10-00-00.5.json").write_text(content)
    with pytest.raises(InputError, match=expected) as caught:
        folder.models(tmp_path)
    assert "\n" not in str(caught.value)


def test_sections_of_other_types_are_taken_as_missing(tmp_path):
    place = write(tmp_path, {"pretrained": "m"}, {"gsm": shares(1)})
    path = next(place.glob("results_*"))
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {"config": [], "n-samples": 3, "group_subtasks": None, "versions": "x", "results": 1}))
    (model,) = folder.models(tmp_path)
    run = model.newest
    assert (run.arguments, run.documents("gsm"), run.groups, run.metrics("gsm")) == ({}, None, {}, {})


def test_labels_are_as_long_as_needed_to_differ():
    assert folder.labels(["org/base", "me/x/last", "me/y/last", "plain"]) == {
        "org/base": "base",
        "me/x/last": "x/last",
        "me/y/last": "y/last",
        "plain": "plain",
    }
