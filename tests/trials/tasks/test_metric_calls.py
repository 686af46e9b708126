"""A metric that cannot be called as lm-eval calls it, or fails, is one line with its file and line."""

import pytest

from tests.factories.own_tasks import DISTANCE, role, shop
from trials.errors import InputError
from trials.hub.hub import Hub
from trials.tasks.metric_calls import Scores, place
from trials.tasks.tasks import Tasks, check

DATA = """task: dates
dataset_path: json
dataset_kwargs: {data_files: {test: d.jsonl}}
output_type: generate_until
test_split: test
doc_to_text: "{{q}}"
doc_to_target: "{{a}}"
"""
LISTED = "metric_list: [{metric: !function metrics.fields, aggregation: mean, higher_is_better: true}]\n"


def task(folder, code: str, more: str = LISTED):
    (folder / "d.jsonl").write_text('{"q": "when?", "a": "1 May 2024"}\n')
    (folder / "dates.yaml").write_text(DATA + more)
    (folder / "metrics.py").write_text(code)
    wanted = role({"task": "dates", "metric": "fields", "trust_code": True}, folder)
    tasks = Tasks(Hub())
    check("style", wanted, tasks)
    return tasks.build(wanted)["dates"]


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (
            "def fields(refs, preds):\n    return 1.0\n",
            "metrics.py:1: task dates: fields(refs, preds) does not fit lm-eval's call "
            "fields(references=[...], predictions=[...]); change its parameters",
        ),
        (
            "def fields(references, predictions):\n    return 1 / len(predictions[0])\n",
            "metrics.py:2: task dates: fields: ZeroDivisionError: division by zero for the response ''",
        ),
        (
            "def fields(references, predictions):\n    return [1.0]\n",
            "metrics.py:1: task dates: metric fields returns [1.0] for a document; aggregation: mean takes a number",
        ),
        (
            "def fields(references, predictions):\n    return len(references) + 'a'\n",
            "metrics.py:2: task dates: fields: TypeError: unsupported operand type(s) for +: 'int' and 'str' for the response",
        ),
        (
            "def fields(references, predictions):\n    return {'other': 1.0}\n",
            "metrics.py:1: it returns other, but no fields",
        ),
    ],
    ids=["parameters", "raises", "list", "type-error", "other-name"],
)
def test_metric_that_fails_is_named_before_anything_starts(tmp_path, code, expected):
    with pytest.raises(InputError) as caught:
        task(tmp_path, code)
    assert expected in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_metric_that_takes_one_list_is_called_so(tmp_path):
    built = task(tmp_path, "def fields(items):\n    return float(items[0] == items[1])\n")
    assert built.process_results.tried == [{"fields": 1.0}, {"fields": 0.0}]


def test_arguments_of_metric_list_reach_the_metric(tmp_path):
    more = LISTED.replace("metrics.fields,", "metrics.fields, digits: 2,")
    task(tmp_path, "def fields(references, predictions, digits):\n    return float(digits)\n", more)
    with pytest.raises(InputError, match=r"does not fit lm-eval's call fields\(references=.*, predictions=.*, digits=...\)"):
        task(tmp_path, "def fields(references, predictions):\n    return 1.0\n", more)


def test_whole_score_function_is_tried_with_document_and_responses(tmp_path):
    more = (
        "process_results: !function metrics.score\nmetric_list: [{metric: fields, aggregation: mean, higher_is_better: true}]\n"
    )
    built = task(tmp_path, "def score(doc, responses):\n    return {'fields': len(responses[0])}\n", more)
    assert built.process_results.tried == [{"fields": 10}, {"fields": 0}]
    with pytest.raises(
        InputError, match=r"metrics.py:1: task dates: score\(doc\) does not fit .* score\(document, responses\)"
    ):
        task(tmp_path, "def score(doc):\n    return {}\n", more)


def test_failure_in_a_trial_names_task_metric_line_and_response(tmp_path):
    built = task(tmp_path, "def fields(references, predictions):\n    return float(predictions[0][:1] or 0)\n")
    assert built.process_results({"q": "", "a": "1"}, ["2"]) == {"fields": 2.0}
    with pytest.raises(InputError, match=r"metrics.py:2: task dates: fields: ValueError: could not .* for the response 'no'"):
        built.process_results({"q": "", "a": "1"}, ["no"])


def test_sound_metrics_are_tried(tmp_path):
    tasks = Tasks(Hub())
    built = tasks.build(role(DISTANCE, shop(tmp_path)))["shop_distance"]
    assert isinstance(built.process_results, Scores)
    assert [set(found) for found in built.process_results.tried] == [{"distance", "close"}] * 2


def test_only_python_functions_have_a_place():
    assert place(None) is place(len) is None
    assert place(task) == f"{__file__}:{task.__code__.co_firstlineno}"
