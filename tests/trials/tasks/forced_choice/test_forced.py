"""Word problems as forced choices: cut before the result, four different numbers, and few-shot rows as the generated task's."""

import os
import re
from itertools import permutations
from pathlib import Path

import pandas as pd
import pytest

import trials
from trials.evaluation import evaluate
from trials.hub.hub import Hub
from trials.models import base
from trials.spec import Base, Evaluation
from trials.tasks.forced_choice import forced
from trials.tasks.tasks import Tasks

MICRO = Path(trials.__file__).parent / "micro" / "hub" / "micro"


def doc(answer: str, question: str = "What is it?") -> dict[str, str]:
    return {"question": question, "answer": answer}


def prompt(answer: str) -> str:
    return forced.context(doc(answer)).removeprefix("Question: What is it?\nAnswer: ")


@pytest.mark.parametrize(
    ("answer", "until", "gold"),
    [
        ("She makes 9 * 2 = $<<9*2=18>>18 a day.\n#### 18", "She makes 9 * 2 = $<<9*2=", "18>>"),
        ("<<9*2=18>>18, and <<18*1=18>>18 it stays: 18.\n#### 18", "<<9*2=18>>18, and <<18*1=", "18>>"),
        ("<<2*65=130>>130,000 and 130,000 it is\n#### 130,000", "<<2*65=130>>130,000 and ", "130,000 "),
        ("He has 3 + 4 = 7.\n#### 7", "He has 3 + 4 = ", "7.\n"),
        ("He has 3 + 4 = 7\n#### 7", "He has 3 + 4 = ", "7\n"),
        ("It is 1.8 of 18 parts\n#### 18", "It is 1.8 of ", "18 "),
        ("Half of a dozen.\n#### 6", "Half of a dozen.\n#### ", "6\n\n"),
        ("He owes 4 - 9 = <<4-9=-5>>-5\n#### -5", "He owes 4 - 9 = <<4-9=-5>>-5\n#### ", "-5\n\n"),
        ("It costs <<.5*5=2.5>>2.50\n#### 2.50", "It costs <<.5*5=", "2.5>>"),
    ],
)
def test_context_ends_before_the_result(answer, until, gold):
    assert prompt(answer) == until
    assert forced.choices(doc(answer))[forced.label(doc(answer))] == gold


def test_other_choices_are_the_nearest_numbers_of_the_problem():
    ducks = doc("<<16-3-4=9>>9 eggs.\n9 * 2 = $<<9*2=18>>18.\n#### 18", "16 eggs, 3 eaten, 4 baked, $2 each of 1,000.")
    assert forced.choices(ducks) == ["4>>", "9>>", "16>>", "18>>"]


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("Half of a dozen.\n#### 6", {"6", "7", "12", "16"}),
        ("Half of 12.\n#### 6", {"6", "7", "12", "16"}),  # 12 is its own and twice the result
        ("Nothing.\n#### 0", {"0", "1", "10", "2"}),
        ("One is 1.\n#### 1", {"1", "2", "11", "3"}),
        ("It is worth 70,000 of 1,000,000\n#### 70000", {"70,000", "1,000,000", "70,001", "140,000"}),
        ("It is half of 2.50 and 2.5: 1.25.\n#### 1.25", {"1.25", "2.5", "2.25", "11.25"}),
    ],
)
def test_missing_choices_are_numbers_near_the_result(answer, expected):
    assert {re.match(r"[\d.,]*\d", choice).group() for choice in forced.choices(doc(answer))} == expected


def test_solution_without_a_final_number_is_refused():
    with pytest.raises(ValueError, match="without a number after ####"):
        forced.context(doc("It is 3."))


def hold(rows: list[dict[str, str]]) -> None:
    """What must be so of any problem."""
    for row in rows:
        choices, right = forced.choices(row), forced.label(row)
        numbers = [float(re.match(r"-?[\d.,]*\d", choice).group().replace(",", "")) for choice in choices]
        assert numbers == sorted(set(numbers)) and len(numbers) == 4
        assert numbers[right] == float(row["answer"].rpartition("####")[2].replace(",", ""))
        assert not any(one.startswith(other) for one, other in permutations(choices, 2)), "none is another's beginning"
        whole = f"Question: {row['question']}\nAnswer: {row['answer']}\n\n"
        assert whole.startswith(forced.context(row) + choices[right])


def rows_of(folder: Path) -> list[dict[str, str]]:
    (path,) = folder.glob("test-*.parquet")
    return pd.read_parquet(path).to_dict("records")


def test_every_problem_of_micro_is_a_valid_choice():
    hold(rows_of(MICRO / "gsm8k" / "main"))


@pytest.fixture(scope="module")
def loaded():
    return base.load(Base(model="micro", dtype="float32", quantization="none"), Hub())


def built(preset: str, tasks: Tasks):
    evaluation = Evaluation.model_validate({"preset": preset, "fewshot": "first_n"})
    (task,) = tasks.build(evaluation).values()
    return task, evaluation.shots


def same_prompts(preset: str, tasks: Tasks) -> None:
    """The twin's prompts are the generated task's with a part of the solution behind them, document by document."""
    twin, generated = built(f"{preset}_choice", tasks), built(preset, tasks)
    assert twin[1] == generated[1]
    for one, other in list(zip(twin[0].eval_docs, generated[0].eval_docs, strict=True))[:20]:
        assert one == other, "and so its hash, its half and its cluster"
        shown = generated[0].fewshot_context(other, generated[1])
        assert twin[0].fewshot_context(one, twin[1]) == shown.removesuffix(f"Question: {one['question']}\nAnswer:") + (
            forced.context(one)
        )


def splits_at_the_choice(tokenizer, rows) -> None:
    """As lm-eval splits: what the context ends with in white space goes to the choice."""
    for row in rows:
        text = forced.context(row)
        kept = text.rstrip()
        ids = tokenizer(kept, add_special_tokens=False)["input_ids"]
        for choice in forced.choices(row):
            assert tokenizer(text + choice, add_special_tokens=False)["input_ids"][: len(ids)] == ids


def test_twin_has_the_documents_and_few_shot_rows_of_its_task(loaded):
    same_prompts("micro_gsm", Tasks(Hub()))
    splits_at_the_choice(loaded.tokenizer, rows_of(MICRO / "gsm8k" / "main")[:100])


def test_base_prefers_the_right_number(loaded):
    evaluation = Evaluation.model_validate({"preset": "micro_gsm_choice", "documents": 40})
    found = evaluate.evaluate(
        evaluate.make_engine(evaluation.engine, loaded.model, loaded.tokenizer, 32), "math", evaluation, Tasks(Hub())
    )
    assert found["score"].mean() > 0.8
    assert ((found["margin"] > 0) == (found["score"] == 1)).all()
    assert (found["bits"] > 0).all()
    assert found["bits"].mean() < 1


def test_every_problem_of_gsm8k_is_a_valid_choice():
    named = os.environ.get("HUB_MIRROR")
    if not named or not (Path(named).expanduser() / "openai" / "gsm8k").is_dir():
        pytest.skip("HUB_MIRROR names no mirror folder with openai/gsm8k: the twin is NOT checked on the real data")
    mirror = Path(named).expanduser().resolve()
    rows = rows_of(mirror / "openai" / "gsm8k" / "main")
    hold(rows)
    same_prompts("gsm8k", Tasks(Hub(mirror)))
    model = "HuggingFaceTB/SmolLM2-135M-Instruct"
    if not (mirror / model).is_dir():
        pytest.skip(f"{mirror} lacks {model}: its tokens at the twin's choices are NOT checked")
    splits_at_the_choice(base.tokenizer(Base(model=model), Hub(mirror)), rows)
