"""No trial trains on a test document, and a source with too many of them is refused."""

import json
import os
import warnings
from pathlib import Path

import pytest

from tests.factories.rows import Letters, data
from trials import mix
from trials.data import decontamination
from trials.errors import InputError
from trials.hub.hub import Hub
from trials.spec import Evaluation, TrialSpec
from trials.tasks.tasks import Tasks

MIRROR = Path(os.environ.get("HUB_MIRROR", Path(__file__).parents[4] / "shared" / "hub"))
ROLES = [
    Evaluation(task="micro_swag", metric="acc_norm", documents=5),
    Evaluation(task="micro_gsm", metric="exact_match", filter="strict-match"),
    Evaluation(task="micro_cs", metric="acc"),
]
TEST = "The quick brown fox jumps over the lazy dog, and then it sleeps for a week in the sun."


@pytest.fixture(scope="module")
def tasks():
    return Tasks(Hub())


def test_13_shared_words_overlap_and_12_do_not():
    found = decontamination.of_texts({"task": [TEST]})
    words = TEST.split()
    for start in range(len(words) - 12):
        assert found.task_of("well: " + " ".join(words[start : start + 13]).upper() + " !!") == "task"
        assert found.task_of("well: " + " ".join(words[start : start + 12]) + " !!") is None
    swapped = [words[1], words[0], *words[2:13]]
    assert found.task_of(" ".join(swapped)) is None, "the order of the words counts"
    assert decontamination.of_texts({"task": ["too short a text"]}).task_of(TEST) is None
    assert decontamination.of_texts({}).task_of(TEST) is None


def test_grams_of_many_documents_are_ignored():
    asked = "Given the following problem, reason and give a final answer to the problem as a number."
    many = decontamination.of_texts({"task": [f"{asked} What is {n} plus {n + 1}?" for n in range(30)]})
    assert many.task_of(asked) is None
    few = decontamination.of_texts({"task": [f"{asked} What is {n} plus {n + 1}?" for n in range(10)]})
    assert few.task_of(asked) == "task"


def test_documents_are_prompt_and_right_answer_of_the_whole_split(tasks):
    found = decontamination.documents(tasks, ROLES)
    assert found is decontamination.documents(tasks, ROLES), "made once"
    for role in ROLES:
        for name, task in tasks.build(role).items():
            for doc in list(task.eval_docs)[-20:]:
                text = f"{doc['ctx']} {doc['endings'][int(doc['label'])]}" if name == "micro_swag" else task.doc_to_text(doc)
                if name == "micro_gsm":
                    text = f"{doc['question']} {doc['answer']}"
                if len(text.split()) >= 15:
                    assert found.task_of(text) == name


@pytest.fixture
def planted(tasks, tmp_path):
    """Returns a function that makes the Data of a source of 200 rows, some of them test documents."""

    def make(copies: int, **values):
        docs = list(tasks.build(ROLES[1])["micro_gsm"].eval_docs)[:copies]
        rows = [{"q": doc["question"], "a": doc["answer"]} for doc in docs]
        rows += [{"q": f"question {n}", "a": f"answer {n}"} for n in range(200 - copies)]
        path = tmp_path / f"rows{copies}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        source = {"dataset": str(path), "instruction": "{{q}}", "response": "{{a}}"}
        return data(mix={"mine": 1.0}, sources={"mine": source}, **values)

    return make


def screened(asked, tasks) -> tuple[list[mix.Example], decontamination.Screen]:
    screen = decontamination.Screen(decontamination.documents(tasks, ROLES), asked.max_overlap)
    return mix.build(asked, Hub(), Letters(), screen), screen


def test_planted_document_is_left_out_and_moves_no_other_row(planted, tasks):
    asked = planted(2, samples=178)
    rows, screen = screened(asked, tasks)
    assert not any("####" in "".join(map(chr, row.input_ids)) for row in rows)
    assert screen.seen["mine"]["overlapping"] == 2 - sum(
        "####" in "".join(map(chr, row.input_ids)) for row in mix.heldout(asked, Hub(), Letters())["mine"]
    )
    unscreened = [row for row in mix.build(asked, Hub(), Letters()) if "####" not in "".join(map(chr, row.input_ids))]
    assert rows[: len(unscreened)] == unscreened
    assert screened(asked.model_copy(update={"samples": 50}), tasks)[0] == rows[:50]


def test_source_with_too_many_test_documents_is_refused(planted, tasks):
    with pytest.raises(InputError) as caught:
        screened(planted(30, samples=5), tasks)
    told = str(caught.value)
    assert "source 'mine': 30 of 200 rows" in told
    assert "data.max_overlap 0.01" in told
    assert "micro_gsm: '" in told
    assert "\n" not in told
    rows, _ = screened(planted(30, samples=100, max_overlap=0.2), tasks)
    assert len(rows) == 100


def test_changed_source_is_judged_again(planted, tasks):
    asked = planted(30, samples=5)
    path = Path(asked.sources["mine"].dataset)
    full = path.read_text()
    path.write_text("".join(f'{{"q": "question {n}", "a": "answer"}}\n' for n in range(200)))
    screened(asked, tasks)
    path.write_text(full)
    for _ in range(2):
        with pytest.raises(InputError, match="30 of 200"):
            screened(asked, tasks)


def test_refused_source_fails_the_trial_with_its_reason(another, spec, planted):
    sources = planted(30).model_dump(mode="json")
    record = another().run(TrialSpec.model_validate({**spec.model_dump(mode="json"), "data": sources}))
    assert record.failure.kind == "InputError"
    assert "30 of 200 rows" in record.failure.message


def test_self_samples_are_screened_and_never_refused(tasks):
    doc = next(iter(tasks.build(ROLES[1])["micro_gsm"].eval_docs))
    texts = [([1, n], f"{doc['question']} {doc['answer']}" if n % 2 else f"text {n}") for n in range(400)]
    screen = decontamination.Screen(decontamination.documents(tasks, ROLES), 0.01)
    rows = mix.build(data(samples=20, mix={"self": 1.0}), Hub(), Letters(), screen, lambda count: texts[:count])
    assert [row.input_ids[1] for row in rows] == list(range(0, 40, 2))
    assert screen.seen["self"] == {"rows": 39, "overlapping": 19}


def test_micro_sources_stay_below_the_threshold(tasks):
    _, screen = screened(data(samples=3_000, mix={"micro/alpaca": 0.4, "micro/gsm8k": 0.6}), tasks)
    assert screen.seen["micro/alpaca"]["overlapping"] == 0
    assert 0 < screen.seen["micro/gsm8k"]["overlapping"] < 0.01 * screen.seen["micro/gsm8k"]["rows"]


def test_gsm8k_training_rows_with_test_problems_are_left_out():
    if not (MIRROR / "openai" / "gsm8k").is_dir():
        warnings.warn(f"no mirror at {MIRROR} (HUB_MIRROR names one): the real GSM8K is not looked through", stacklevel=1)
        pytest.skip(f"no mirror at {MIRROR}")
    hub = Hub(MIRROR)
    role = Evaluation(task="gsm8k", metric="exact_match", filter="strict-match")
    screen = decontamination.Screen(decontamination.documents(Tasks(hub), [role]), 0.01)
    assert len(mix.build(data(samples=7_000, mix={"gsm8k": 1.0}), hub, Letters(), screen)) == 7_000
    assert 3 <= screen.seen["gsm8k"]["overlapping"] <= 20
