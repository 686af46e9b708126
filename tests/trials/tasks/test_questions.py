"""A file of questions becomes an lm-eval task, and a bad row is one line with its file and number."""

import gzip
import json
import re
from pathlib import Path

import pandas as pd
import pytest
import yaml
from pydantic import ValidationError

from trials.errors import InputError
from trials.evaluation import evaluate
from trials.evaluation.engine.fast_engine import FastEngine
from trials.explain import problems
from trials.hub.hub import Hub
from trials.hub.pinning import pinned
from trials.models import base
from trials.spec import Base, Evaluation, TrialSpec
from trials.tasks.questions import ends_by_template
from trials.tasks.tasks import Tasks, check
from trials.yaml_file import YamlFile

ROWS = [
    {"question": f"What is {a} + {b}?", "answer": str(a + b), "options": [str(a + b), str(a + b + 1)], "right": "A"}
    for a, b in [(1, 2), (3, 4), (5, 6), (7, 8)]
]


@pytest.fixture
def file(folder):
    def write(rows=ROWS, name="sums.jsonl") -> Path:
        path = folder / name
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return path

    return write


def role(path: Path, **fields) -> Evaluation:
    return Evaluation.model_validate({"questions": str(path), **fields})


def built(evaluation: Evaluation):
    tasks = Tasks(Hub())
    check("math", evaluation, tasks)
    (task,) = tasks.build(evaluation).values()
    return task


def scored(task, doc: dict, response: str) -> float:
    """The score of a response by the task's own filters and metric."""
    (ensemble,) = task._filters
    responses = [[response]]
    for one in ensemble.filters:
        responses = one().apply(responses, [doc])
    (value,) = task.process_results(doc, [next(iter(responses))]).values()
    return float(value)


@pytest.mark.parametrize(
    ("fields", "metric", "right", "wrong"),
    [
        ({}, "exact", " 3\n", "3."),
        ({"score": "contains"}, "contains", "It is 3, I think", "2"),
        ({"score": "numeric"}, "numeric", "1 + 2 = 3.0", "3 or 4"),
        ({"score": r"regex:#### (\d+)"}, "exact_match", "so\n#### 3", "3"),
    ],
)
def test_score_judges_responses(file, fields, metric, right, wrong):
    evaluation = role(file(), **fields)
    task = built(evaluation)
    doc = task.eval_docs[0]
    assert (evaluation.task, evaluation.metric) == ("sums", metric)
    assert task.doc_to_text(doc) == "Question: What is 1 + 2?\nAnswer:"
    assert task.config.generation_kwargs["until"] == ["\n\n", "Question:"]
    assert (scored(task, doc, right), scored(task, doc, wrong)) == (1.0, 0.0)


@pytest.mark.parametrize(
    "choices",
    ["options", "{{ options }}", ["{{options[0]}}", "{{options[1]}}"], "{% for one in options %}{{one}}\n{% endfor %}"],
)
@pytest.mark.parametrize("answer", ["{{answer}}", "{{right}}", "0"])
def test_choices_are_a_column_or_templates(file, choices, answer):
    rows = [{**row, "options": [f"{one} apples" for one in row["options"]]} for row in ROWS]
    answer = "{{answer}} apples" if answer == "{{answer}}" else answer
    task = built(role(file(rows), choices=choices, answer=answer))
    doc = task.eval_docs[1]
    assert task.OUTPUT_TYPE == "multiple_choice"
    assert (task.doc_to_choice(doc), task.doc_to_target(doc)) == (["7 apples", "8 apples"], 0)


def test_examples_are_other_rows_of_the_file(file):
    task = built(role(file(), prompt="{{question}}\n", shots=3, max_tokens=8, until="\n"))
    prompt = task.fewshot_context(task.eval_docs[0], 3)
    assert prompt == "What is 3 + 4?\n7\n\nWhat is 5 + 6?\n11\n\nWhat is 7 + 8?\n15\n\nWhat is 1 + 2?\n"
    assert task.config.generation_kwargs == {"until": ["\n"], "max_gen_toks": 8, "do_sample": False}
    with pytest.raises(InputError, match=r"eval.math.shots: 4 requested, task sums has 3 few-shot rows"):
        built(role(file(), shots=4))


DATES = [{"question": "Moon landing?", "answer": "1969-07-20"}, {"question": "Fall of the wall?", "answer": "1989-11-09"}]


@pytest.mark.parametrize("score", ["exact", "contains", r"regex:\d{4}-\d{2}-\d{2}"])
def test_answers_that_are_dates_stay_texts(file, score):
    task = built(role(file(DATES), score=score))
    assert [doc["answer"] for doc in task.eval_docs] == [row["answer"] for row in DATES]
    assert [scored(task, doc, doc["answer"]) for doc in task.eval_docs] == [1.0, 1.0]
    assert scored(task, task.eval_docs[0], "1969-07-21") == 0.0


def test_prompts_and_choices_that_are_dates_stay_texts(file):
    rows = [{"question": f"2001-01-0{n}", "answer": "1969-07-20"} for n in (1, 2)]
    task = built(role(file(rows), prompt="{{question}}", choices=["{{answer}}", "1999-01-01"]))
    doc = task.eval_docs[0]
    assert (task.doc_to_text(doc), task.doc_to_choice(doc), task.doc_to_target(doc)) == (
        "2001-01-01",
        ["1969-07-20", "1999-01-01"],
        0,
    )


def test_rows_without_dates_keep_their_file(file):
    """Its checksum is in the keys of earlier sweeps."""
    assert sorted(path.name for path in Path(role(file()).include).iterdir()) == ["questions.jsonl", "sums.yaml"]
    assert "questions.arrow" in {path.name for path in Path(role(file(DATES)).include).iterdir()}


@pytest.mark.parametrize(
    ("fields", "expected"),
    [({}, True), ({"score": "numeric"}, True), ({"choices": "options"}, False), ({"until": "x"}, False)],
)
def test_end_of_a_response_depends_on_the_template_only_by_default(fields, expected):
    assert ends_by_template({"questions": "a.jsonl", **fields}) is expected
    assert not ends_by_template({"task": "micro_gsm", **fields})


def test_chat_ends_by_itself(file):
    assert built(role(file(), chat_template=True)).config.generation_kwargs["until"] == []


@pytest.mark.parametrize("name", ["q.jsonl", "q.json", "q.csv", "q.tsv", "q.parquet", "q.jsonl.gz", "q.arrow", "q.parquet.gz"])
def test_every_format_gives_the_same_task(file, folder, name):
    import datasets

    expected = role(file(name="q.jsonl"), choices="options").include
    frame, path = pd.DataFrame(ROWS), folder / name
    text = frame.assign(options=frame["options"].map(json.dumps))  # a table of text has no lists
    match name.partition(".")[2]:
        case "json":
            path.write_text(json.dumps(ROWS))
        case "csv":
            text.to_csv(path, index=False)
        case "tsv":
            text.to_csv(path, index=False, sep="\t")
        case "parquet":
            frame.to_parquet(path)
        case "parquet.gz":
            path.write_bytes(gzip.compress(frame.to_parquet()))
        case "jsonl.gz":
            path.write_bytes(gzip.compress((folder / "q.jsonl").read_bytes()))
        case "arrow":
            datasets.Dataset.from_list(ROWS).save_to_disk(folder / "saved")
            path = next((folder / "saved").glob("*.arrow")).rename(path)
    assert role(path, choices="options").include == expected


def bad(number: int, **changes) -> list[dict]:
    rows = [dict(row) for row in ROWS]
    rows[number] |= changes
    return rows


@pytest.mark.parametrize(
    ("rows", "fields", "key", "refusal"),
    [
        (
            ROWS,
            {"prompt": "{{qestion}}"},
            "prompt",
            "eval.math.prompt: .*row 1: '{{qestion}}': 'qestion' is undefined; .* mean 'question'",
        ),
        (ROWS, {"prompt": "{{question"}, "prompt", "eval.math.prompt: '{{question': template: "),
        (bad(2, answer=" "), {}, "questions", "row 3: the answer is empty"),
        (
            bad(2, answer="three"),
            {"score": "numeric"},
            "questions",
            "row 3: score numeric needs an answer with a number, .*'three'",
        ),
        (bad(1, answer="9"), {"choices": "options"}, "questions", "row 2: the answer '9' is none of the choices '7', '8'"),
        (bad(1, options=["7"]), {"choices": "options"}, "questions", "row 2: 1 choice; at least two are needed"),
        (bad(1, options=["7", "7"]), {"choices": "options"}, "questions", "row 2: choices that are empty or twice there"),
        (
            bad(1, options="[" * 100_000),
            {"choices": "options"},
            "questions",
            "row 2: choices: column 'options' is no JSON list",
        ),
        (ROWS, {"choices": "option"}, "questions", "row 1: choices: no column 'option'; the columns are question"),
        (ROWS, {"score": "regex:(#"}, "score", "'regex:.#' is no regular expression"),
        (
            ROWS,
            {"score": "numerical"},
            "score",
            "no score 'numerical'; did you mean numeric. allowed: exact, contains, numeric",
        ),
        (ROWS, {"score": "exact", "choices": "options"}, "choices", "choices are scored by score: choice, not exact"),
        (ROWS, {"choices": "options", "until": "x"}, "until", "nothing is generated where choices are scored"),
        (ROWS, {"metric": "acc"}, "metric", "a role with questions has its own metric; leave one of the two out"),
        (ROWS, {"max_tokens": True}, "max_tokens", "expected a whole number, 1 or more"),
        (ROWS, {"prompt": 3}, "prompt", "expected a text"),
        (ROWS, {"promt": "x"}, "promt", "eval.math.promt: unknown key; did you mean 'prompt'"),
        ([], {}, "questions", "has no rows"),
        (bad(3, question="\ud800"), {}, "questions", r"sums.jsonl: row 4: .ud800 is half of a character"),
        (
            bad(3, options=["7", "\ud800"], answer="7"),
            {"choices": "options"},
            "questions",
            r"row 4: .ud800 is half of a character",
        ),
    ],
)
def test_mistake_is_one_line_at_its_key(file, write, spec, rows, fields, key, refusal):
    parts = {"base": {"model": "micro"}, "data": {"samples": 0, "mix": {"micro/alpaca": 1.0}}}
    config = write(parts | {"eval": {"math": {"questions": str(file(rows)), **fields}}})
    with pytest.raises(InputError) as caught:
        YamlFile(config).check(TrialSpec)
    message = str(caught.value)
    line, column = map(int, message.split(":")[1:3])
    assert config.read_text().splitlines()[line - 1][column - 1 :].startswith(key), message
    assert re.search(refusal, message), message
    assert "\n" not in message


def test_missing_file_is_refused(folder):
    with pytest.raises(ValidationError, match=r"nowhere.jsonl: there is no such file"):
        role(folder / "nowhere.jsonl")


def test_content_enters_the_key_and_its_place_does_not(file, folder, spec):
    def key(path: Path, **fields) -> str:
        return pinned(spec.model_copy(update={"eval": {"math": role(path, **fields)}}), Hub()).key

    first = key(file())
    (folder / "moved").mkdir()
    assert key(file().rename(folder / "moved" / "sums.jsonl")) == first
    assert key(file(), prompt="Question: {{question}}\nAnswer:", score="exact") == first, "a default is its value"
    assert len({first, key(file(ROWS[:3])), key(file(), prompt="{{question}}"), key(file(), score="numeric")}) == 4


def test_role_of_the_page_on_tasks_is_a_benchmark(folder):
    page = (Path(__file__).parents[3] / "docs" / "tasks.md").read_text()
    (text,) = re.findall(r"## A file of questions.*?```yaml\n(.*?)```", page, flags=re.DOTALL)
    roles = yaml.safe_load(text)["eval"]
    (folder / "faq.jsonl").write_text(json.dumps({"question": "Open?", "answer": "Nine to five"}) + "\n")
    (folder / "tickets.csv").write_text("text,team,other_team\nA bill,billing,legal\nA law,legal,legal\n")
    support, triage = (built(Evaluation.model_validate(roles[name])) for name in ("support", "triage"))
    assert support.doc_to_text(support.eval_docs[0]) == "Question: Open?\nAnswer:"
    assert triage.doc_to_choice(triage.eval_docs[1]) == ["sales", "billing", "legal"]
    assert [triage.doc_to_target(doc) for doc in triage.eval_docs] == [1, 2]


def test_outcomes_of_a_model_are_the_scores_of_its_responses(file):
    base_ = base.load(Base(model="micro", quantization="none", dtype="float32"), Hub())
    prompt = "Question: Tom has {{a}} apples and buys {{b}} more. How many apples does Tom have?\nAnswer:"
    rows = [{"a": a, "b": b, "sum": a + b} for a, b in [(7, 5), (3, 1), (8, 6), (2, 2), (99, 88)]]
    evaluation = role(file(rows), prompt=prompt, answer="{{sum}}", score="numeric", until="Question:", max_tokens=32)
    found = evaluate.evaluate(FastEngine(base_.model, base_.tokenizer, 8), "math", evaluation, Tasks(Hub()))
    last = [(re.findall(r"\d+", response) or ["none"])[-1] for response in found["response"]]
    assert found["score"].tolist() == [float(one == str(row["sum"])) for one, row in zip(last, rows, strict=True)]
    assert 0 < found["score"].sum() < len(rows)


def test_made_role_survives_a_round_trip(file):
    evaluation = role(file(), score="numeric", shots=1)
    again = Evaluation.model_validate(evaluation.model_dump(mode="json"))
    assert again == evaluation
    assert not again.trust_code, "its scores are this program's own"


def test_unknown_key_of_a_role_names_those_of_a_file_of_questions_too(file):
    given = {"questions": str(file()), "colour": "red"}
    with pytest.raises(ValidationError) as caught:
        Evaluation.model_validate(given)
    ((_, text),) = problems(caught.value, Evaluation, given)
    assert "unknown key 'colour'" in text
    assert " answer, " in text and " until" in text
