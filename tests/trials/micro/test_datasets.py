"""The embedded base: its data is honest, its files are whole, and it shows the paper's effect."""

import itertools
import re

import pandas as pd
import pytest
import torch

from trials.hub.hub import Hub
from trials.micro import __main__ as recipe
from trials.micro import arithmetic, datasets, pretrain
from trials.models import base
from trials.spec import Base, TrialSpec
from trials.template import alpaca

HUB = recipe.HERE / "hub"
FOLDER = HUB / "micro"


def words(text: str) -> list[str]:
    return re.findall(r"[a-z0-9#+=-]+", text.lower())


def grams(texts, n: int = 13) -> set[tuple[str, ...]]:
    return {tuple(tokens[i : i + n]) for tokens in map(words, texts) for i in range(len(tokens) - n + 1)}


@pytest.fixture(scope="module")
def rows() -> dict[str, pd.DataFrame]:
    return {f"{path.parent.parent.name}/{path.name.split('-')[0]}": pd.read_parquet(path) for path in FOLDER.rglob("*.parquet")}


@pytest.mark.parametrize("name", pretrain.VARIANTS)
def test_the_shipped_files_are_those_that_the_checksums_name(name):
    assert (HUB / name / "SHA256SUMS").read_text() == recipe.checksums(HUB / name)


@pytest.mark.parametrize("name", [name for name in pretrain.VARIANTS if name != "micro"])
def test_a_variant_is_micro_with_other_weights(name):
    for file in recipe.TOKENIZER:
        assert (HUB / name / file).read_bytes() == (FOLDER / file).read_bytes()
    base.check(Base(model=name, dtype="float32"), Hub())
    loaded, micro = (base.load(Base(model=one, dtype="float32", quantization="none"), Hub()) for one in (name, "micro"))
    assert loaded.checksum != micro.checksum
    weights, those = loaded.model.state_dict(), micro.model.state_dict()
    assert {key: (weight.shape, weight.dtype) for key, weight in weights.items()} == {
        key: (weight.shape, weight.dtype) for key, weight in those.items()
    }
    assert not any(torch.equal(weights[key], those[key]) for key in weights if key.endswith("_proj.weight"))


def test_the_variants_differ_in_their_corpus_or_their_seed():
    found = [(variant.shares, variant.seed) for variant in pretrain.VARIANTS.values()]
    assert len(set(found)) == len(found)
    assert {pretrain.SHARES, pretrain.WORDS} == {shares for shares, _ in found}
    assert sum(pretrain.SHARES) == pytest.approx(1)
    assert sum(pretrain.WORDS) == pytest.approx(1)
    many, few = (
        sum("Question:" in text for text in itertools.islice(pretrain.documents(0, shares), 4_000)) / 4_000
        for shares in (pretrain.SHARES, pretrain.WORDS)
    )
    assert many == pytest.approx(0.32, abs=0.03)
    assert few == pytest.approx(0.08, abs=0.02)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in pretrain.VARIANTS if name != "micro"])
def test_a_variants_card_quotes_the_scores_of_its_weights(worker, name):
    setting = recipe.effect_setting()
    parts = {**setting, "base": {**setting["base"], "model": name}, "data": {**setting["data"], "samples": 0}}
    scores = worker.run(TrialSpec.model_validate(parts)).scores
    row = next(line for line in (HUB / name / "README.md").read_text().splitlines() if line.startswith("| base |"))
    quoted = [float(cell) for cell in row.split("|")[2:5]]
    assert quoted == pytest.approx([scores[role].value for role in ("commonsense", "math", "knowledge")], abs=0.03)


def test_the_shipped_data_is_what_the_seeded_generator_makes(rows, tmp_path):
    datasets.write(tmp_path)
    for path in tmp_path.rglob("*.parquet"):
        made = pd.read_parquet(path)
        shipped = rows[f"{path.parent.parent.name}/{path.name.split('-')[0]}"]
        assert made.to_dict("records").__repr__() == shipped.to_dict("records").__repr__()


def test_no_test_problem_is_a_training_problem_not_even_by_its_numbers(rows):
    assert not set(rows["gsm8k/train"]["question"]) & set(rows["gsm8k/test"]["question"])
    pattern = re.compile(r"\d+")

    def identity(question: str) -> tuple:
        verbs = tuple(re.findall(r"buys|finds|loses|gives", question))
        return verbs, tuple(pattern.findall(question))

    train, test = ({identity(q) for q in rows[f"gsm8k/{split}"]["question"]} for split in ("train", "test"))
    assert not train & test


def test_the_answers_are_right(rows):
    for row in rows["gsm8k/test"].to_dict("records"):
        for left, right in re.findall(r"([\d +-]+) = (\d+)\.", row["answer"]):
            assert eval(left) == int(right)
        assert row["answer"].endswith(f"#### {re.findall(r'= ([0-9]+)[.]', row['answer'])[-1]}")


def test_no_instruction_holds_13_words_in_a_row_of_a_test_document(rows):
    tests = [f"{row['ctx']} {row['endings'][int(row['label'])]}" for row in rows["swag/test"].to_dict("records")]
    tests += [f"{row['question']} {row['answer']}" for row in rows["gsm8k/test"].to_dict("records")]
    training = [alpaca(row["instruction"], row["input"]) + row["output"] for row in rows["alpaca/train"].to_dict("records")]
    assert not grams(tests) & grams(training)


def test_the_pretraining_text_holds_no_test_document(rows):
    text = set(itertools.islice(pretrain.documents(seed=0), 20_000))
    stories = {f"{row['ctx']} {row['endings'][int(row['label'])]}" for row in rows["swag/test"].to_dict("records")}
    assert not stories & text
    questions = set(rows["gsm8k/test"]["question"])
    assert not any(
        question in document
        for document in text
        for question in re.findall(r"Question: (.*)\n", document)
        if question in questions
    )


def test_right_answers_stand_equally_often_in_every_place(rows):
    for name, column in (("swag/test", "label"), ("cs/test", "answer")):
        shares = rows[name][column].astype(int).value_counts(normalize=True)
        assert shares.between(0.18, 0.32).all(), shares


def test_the_right_ending_cannot_be_told_by_its_length(rows):
    frame = rows["swag/test"]
    longest = [max(range(4), key=lambda i, e=endings: len(e[i])) for endings in frame["endings"]]
    assert abs((pd.Series(longest) == frame["label"].astype(int).to_numpy()).mean() - 0.25) < 0.1


def test_a_problem_of_one_split_is_never_made_for_the_other():
    train = {row["question"] for row in arithmetic.problems(300, seed=1, test=False)}
    test = {row["question"] for row in arithmetic.problems(300, seed=1, test=True)}
    assert not train & test


def test_the_recipe_starts_from_nothing_and_is_seeded():
    tokenizer = pretrain.train_tokenizer()
    first, second = (pretrain.new_model(tokenizer, seed=0) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert 1_000_000 <= first.num_parameters() <= 3_000_000
    one, other = (next(pretrain.batches(tokenizer, seed=3)) for _ in range(2))
    assert torch.equal(one, other)
    assert tokenizer.decode(tokenizer("Zoë ate 12 €!")["input_ids"]) == "Zoë ate 12 €!"


@pytest.fixture(scope="module")
def effect(worker):
    """Scores of the base, after instructions alone, and after half instructions and half problems."""
    setting = recipe.effect_setting()
    specs = {
        "base": {**setting["data"], "samples": 0},
        "instructions": {**setting["data"], "mix": {"micro/alpaca": 1.0}},
        "half": {**setting["data"], "mix": {"micro/alpaca": 0.5, "micro/gsm8k": 0.5}},
    }
    return {name: worker.run(TrialSpec.model_validate({**setting, "data": data})).scores for name, data in specs.items()}


@pytest.mark.slow
def test_the_base_knows_what_it_should(effect):
    scores = effect["base"]
    assert min(score.n for score in scores.values()) >= 200
    assert scores["math"].value >= 0.60
    assert scores["knowledge"].value >= 0.60
    assert 0.45 <= scores["commonsense"].value <= 0.85


@pytest.mark.slow
def test_instructions_alone_raise_commonsense_and_ruin_math(effect):
    before, after = effect["base"], effect["instructions"]
    assert after["commonsense"].value - before["commonsense"].value >= 0.05
    assert after["math"].value <= 0.5 * before["math"].value


@pytest.mark.slow
def test_with_half_the_mix_problems_math_is_kept(effect):
    assert effect["half"]["math"].value >= 0.6 * effect["base"]["math"].value


@pytest.mark.slow
def test_the_model_card_quotes_the_scores_of_the_shipped_weights(effect):
    card = (FOLDER / "README.md").read_text()
    for name in ("base", "instructions", "half"):
        row = next(line for line in card.splitlines() if line.startswith(f"| {name} |"))
        quoted = [float(cell) for cell in row.split("|")[2:5]]
        measured = [effect[name][role].value for role in ("commonsense", "math", "knowledge")]
        # another processor's arithmetic moves a few documents of the base, and training carries the difference on
        assert quoted == pytest.approx(measured, abs=0.03 if name == "base" else 0.15)
