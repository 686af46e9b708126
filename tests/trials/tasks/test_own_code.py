"""Code of a task folder runs only where the role trusts it. Each attack would write the file `ran`."""

import sys
from pathlib import Path

import pytest

from trials.errors import InputError
from trials.hub.hub import Hub
from trials.spec import Evaluation
from trials.tasks import answers, own_code
from trials.tasks.own_code import begin, import_from, refused, resolved, shipped
from trials.tasks.task_yaml import Function
from trials.tasks.tasks import Tasks

DATA = """dataset_path: json
dataset_kwargs: {data_files: {test: d.jsonl}}
output_type: generate_until
test_split: test
doc_to_text: "{{q}}"
doc_to_target: "{{a}}"
"""
METRICS = "metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true}]\n"
CODE = """import pathlib
pathlib.Path(__file__).parents[{above}].joinpath("ran").touch()
def f(*arguments):
    return 1
exact = f
"""
SCORE = "process_results: !function trials.tasks.answers.exact\n"


def function(folder: Path, text: str) -> Function:
    found = Function(text)
    found.path, found.line = folder / "t.yaml", 1
    return found


def build(folder: Path, task: str = "t", **fields):
    evaluation = Evaluation.model_validate({"task": task, "metric": "exact_match", "include": str(folder), **fields})
    return Tasks(Hub()).build(evaluation)


@pytest.mark.parametrize(
    "files",
    [
        {"t.yaml": f"task: t\n{DATA}{METRICS}process_docs: !function evil.f\nprocess_docs: null\n"},
        {"t.yaml": f"task: t\n{DATA}{METRICS}metadata: {{!function evil.f : 1}}\n"},
        {"t.yaml": f"task: t\n{DATA}{METRICS}metadata: {{x: !!pairs [a: !function evil.f]}}\n"},
        {"t.yaml": f"task: t\n{DATA}{METRICS}metadata: {{x: !!set {{? !function evil.f}}}}\n"},
        {"t.yaml": f"task: t\n{DATA}{METRICS}{SCORE}", "trials/tasks/answers.py": CODE.format(above=2)},
        {
            "t.yaml": f"include: sub/b.yaml\ntask: t\n{DATA}{METRICS}",
            "sub/b.yaml": SCORE,
            "sub/trials/tasks/answers.py": CODE.format(above=3),
        },
        {
            "g.yaml": "group: t\ntask: [{task: one, process_docs: !function evil.f}]\n",
            "one.yaml": f"task: one\n{DATA}{METRICS}",
        },
        {"t.yaml": f"task: t\n{DATA}metric_list: [{{metric: ROOT/evil.py, hf_evaluate: true}}]\n"},
        {"t.yaml": f"task: t\n{DATA}metric_list: [{{metric: ROOT/evil.py}}]\n"},
        {"t.yaml": "group: t\ntask: [{task: micro_gsm, metric_list: [{metric: ROOT/evil.py}]}]\n"},
    ],
    ids=["twice", "key", "pairs", "set", "named-as-ours", "included", "group", "evaluate", "unknown-metric", "override"],
)
def test_code_without_trust_never_runs(tmp_path, files):
    for name, text in ({"evil.py": CODE.format(above=0), "d.jsonl": '{"q": "1", "a": "2"}\n'} | files).items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text.replace("ROOT", str(tmp_path)))
    with pytest.raises(InputError) as caught:
        build(tmp_path)
    assert not (tmp_path / "ran").exists()
    assert len(str(caught.value).splitlines()) == 1


def test_trusted_code_of_a_group_runs(tmp_path):
    (tmp_path / "code.py").write_text("def docs(rows):\n    return rows.select([1])\n")
    (tmp_path / "d.jsonl").write_text('{"q": "1", "a": "2"}\n{"q": "3", "a": "4"}\n')
    (tmp_path / "one.yaml").write_text(f"task: one\n{DATA}{METRICS}")
    (tmp_path / "g.yaml").write_text("group: t\ntask: [{task: one, process_docs: !function code.docs}]\n")
    assert [doc["q"] for doc in build(tmp_path, trust_code=True)["one"].eval_docs] == ["3"]


def test_score_of_this_program_needs_no_trust(tmp_path):
    (tmp_path / "d.jsonl").write_text('{"prompt": "1", "answer": "2"}\n')
    text = f"task: t\n{DATA}{METRICS}{SCORE}".replace("{{q}}", "{{prompt}}").replace("{{a}}", "{{answer}}")
    (tmp_path / "t.yaml").write_text(text)
    assert build(tmp_path)["t"].config.process_results is answers.exact
    assert shipped(function(tmp_path, "trials.tasks.answers.exact")) is answers.exact
    assert shipped(function(tmp_path, "trials.tasks.answers.number")) is None


def test_config_with_functions_is_a_copy(tmp_path):
    config = {"a": [function(tmp_path, "trials.tasks.answers.exact"), {"b": function(tmp_path, "m.f")}]}
    assert resolved(config, len) == {"a": [answers.exact, {"b": 3}]}
    assert config["a"][0] == "trials.tasks.answers.exact"
    with pytest.raises(InputError, match=r"t.yaml:1: !function m.f: this code runs only with trust_code: true"):
        resolved(config, refused)


def test_trusted_code_outside_the_folder_is_refused(tmp_path):
    (tmp_path / "far.py").write_text("f = len\n")
    imported = import_from(tmp_path / "tasks", lambda path: path.is_relative_to(tmp_path / "tasks"))
    (tmp_path / "tasks").mkdir()
    with pytest.raises(InputError, match=r"far.py is no file of the task folder"):
        imported(function(tmp_path / "tasks", f"{tmp_path}/far.f"))
    assert imported(function(tmp_path / "tasks", "math.sqrt"))(4) == 2


HELPED = """import sys
from pathlib import Path
sys.path.insert(0, str(Path(__file__).parent))
import HELPER
def score(doc, responses):
    return {"exact_match": HELPER.value}
"""


def helped(folder: Path, value: str, helper: str = "slimsweep_test_helper") -> float:
    """The score of a task whose metric comes from a module that its own module imports."""
    folder.mkdir(exist_ok=True)
    (folder / "d.jsonl").write_text('{"q": "1", "a": "2"}\n')
    (folder / "t.yaml").write_text(f"task: t\n{DATA}{METRICS}process_results: !function metrics.score\n")
    (folder / "metrics.py").write_text(HELPED.replace("HELPER", helper))
    (folder / f"{helper.replace('.', '/')}.py").write_text(f"value = {value}\n")
    return build(folder, trust_code=True)["t"].process_results({}, [])["exact_match"]


def test_module_of_one_folder_is_not_taken_for_that_of_another(tmp_path):
    before = list(sys.path)
    assert [helped(tmp_path / name, value) for name, value in [("a", "1.0"), ("b", "0.25"), ("a", "1.0")]] == [1.0, 0.25, 1.0]
    assert [place for place in sys.path if place not in before] == [str(tmp_path / "a")]


@pytest.mark.parametrize("helper", ["slimsweep_test_edited", "slimsweep_test_pack.edited"])
def test_edited_module_is_imported_again(tmp_path, helper):
    (tmp_path / "slimsweep_test_pack").mkdir()
    assert helped(tmp_path, "1.0", helper) == 1.0
    assert helped(tmp_path, "0.25", helper) == 0.25


def test_modules_of_the_program_and_from_before_are_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(own_code, "_imported", {})
    monkeypatch.setattr(own_code, "_before", own_code._before)
    known = {name: module for name, module in sys.modules.items() if name.startswith(("trials", "tests", "datasets"))}
    begin(Path(own_code.__file__).parents[2], 1)
    begin(tmp_path, 2)
    assert {name: sys.modules.get(name) for name in known} == known


def test_missing_function_is_named_with_what_the_module_has(tmp_path):
    (tmp_path / "metrics.py").write_text("from json import loads\ndef fields():\n    pass\ndef near():\n    pass\n")
    imported = import_from(tmp_path, lambda path: True)
    with pytest.raises(InputError) as caught:
        imported(function(tmp_path, "metrics.feilds"))
    text = f"{tmp_path}/metrics.py has no function 'feilds'; did you mean 'fields'? it has fields, near"
    assert str(caught.value) == f"{tmp_path}/t.yaml:1: !function metrics.feilds: {text}"
    with pytest.raises(InputError, match=r"t.yaml:1: .*: there is no file .*/nothing.py, and Python finds no module nothing"):
        imported(function(tmp_path, "nothing.f"))
    (tmp_path / "broken.py").write_text("import json\njson.nothing\n")
    with pytest.raises(AttributeError, match="module 'json' has no attribute 'nothing'"):
        imported(function(tmp_path, "broken.f"))
