"""Each method against forgetting helps in a world that was made for it, and not in one where it has nothing to help with.

Three worlds on micro. In `contradicting`, half of the rows give wrong answers to problems that the base solves, the others are
instructions. In `plain` all rows are instructions. In `agreeing`, all rows are problems with their right answers. What is
forgotten is the rise of the loss on other problems, what is learnt the fall of the loss on other instructions; nats per token.
"""

from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch

from tests.factories.training import PAD, changed
from trials import micro, mix
from trials.adapters import derived, peft_adapter
from trials.data.batching import collate
from trials.drift import kl as drift
from trials.hub.hub import Hub
from trials.mix import Example
from trials.spec import Data, Lora
from trials.template import IGNORED
from trials.training import trainer

PROBLEMS = Path(micro.__file__).parent / "hub" / "micro" / "gsm8k" / "main" / "train-00000-of-00001.parquet"
ROWS, OTHERS = 48, 32
NEVER = trainer.Pace(seconds=float("inf"))


class Worlds:
    def __init__(self, loaded):
        self.loaded = loaded
        self._trained: dict[tuple, dict[str, float]] = {}
        table = pq.read_table(PROBLEMS, columns=["question", "answer"]).to_pylist()
        asked = [row["question"] for row in table[: OTHERS + ROWS]]
        answers = [row["answer"] for row in table[: OTHERS + ROWS]]
        self.problems = [self.problem(*pair) for pair in zip(asked[:OTHERS], answers[:OTHERS], strict=True)]
        right = [self.problem(*pair) for pair in zip(asked[OTHERS:], answers[OTHERS:], strict=True)]
        shifted = [*answers[OTHERS + 1 :], answers[OTHERS]]
        self.wrong = [self.problem(*pair) for pair in zip(asked[OTHERS:], shifted, strict=True)]
        instructions = mix.build(Data(samples=ROWS + OTHERS, mix={"micro/alpaca": 1.0}), Hub(), loaded.tokenizer)
        plain, self.instructions = instructions[:ROWS], instructions[ROWS:]
        both = [row for pair in zip(plain, self.wrong, strict=True) for row in pair]
        self.rows = {"contradicting": both, "plain": plain, "agreeing": right}

    def problem(self, question: str, answer: str) -> Example:
        """A problem in the form that the base was pretrained on."""
        asked = self.loaded.tokenizer(f"Question: {question}\nAnswer:")["input_ids"]
        told = self.loaded.tokenizer(f" {answer}", add_special_tokens=False)["input_ids"]
        return Example("problems", asked + told, [IGNORED] * len(asked) + told)

    def losses(self, model) -> dict[str, float]:
        """Mean loss per token on other problems, other instructions, and the wrong answers."""
        found = {}
        for name, rows in (("problems", self.problems), ("instructions", self.instructions), ("wrong", self.wrong)):
            inputs = collate(rows, PAD)
            labels = inputs["labels"][:, 1:]
            with drift.evaluating(model):
                chances = drift.log_probabilities(model, inputs)
            found[name] = -chances.gather(1, labels[labels != IGNORED][:, None]).mean().item()
        return found

    def trained(self, world: str, rate: float, loss: str = "nll", mask_above: float = 2.5) -> dict[str, float]:
        """What the training forgets and learns, and how much of the wrong answers it learns; nats per token."""
        told = (world, rate, loss, mask_above)
        if told not in self._trained:
            self._trained[told] = self._train(*told)
        return self._trained[told]

    def _train(self, world: str, rate: float, loss: str, mask_above: float) -> dict[str, float]:
        settings = changed(loss=loss, learning_rate=rate, mask_above=mask_above)
        with peft_adapter.adapted(self.loaded, Lora(rank=4), 0) as model:
            before = self.losses(model)
            inputs = trainer.TrainingInputs(model, PAD, self.rows[world], settings, lambda _: None, NEVER)
            trainer.fit(inputs, trainer.beginning(model, settings))
            after = self.losses(model)
        return {
            "forgets": after["problems"] - before["problems"],
            "learns": before["instructions"] - after["instructions"],
            "believes": before["wrong"] - after["wrong"],
        }


@pytest.fixture(scope="module")
def worlds(loaded) -> Worlds:
    return Worlds(loaded)


def test_eaft_forgets_less_at_equal_learning_where_rows_contradict_what_the_base_is_sure_of(worlds):
    ours, theirs = worlds.trained("contradicting", 7e-3, "eaft"), worlds.trained("contradicting", 3e-3)
    assert ours["learns"] > theirs["learns"] > 1
    assert ours["forgets"] < 0.6 * theirs["forgets"], "it saves four tenths and more"


def test_eaft_forgets_no_less_at_equal_learning_where_nothing_is_contradicted(worlds):
    ours, theirs = worlds.trained("plain", 7e-3, "eaft"), worlds.trained("plain", 5e-3)
    assert ours["learns"] < theirs["learns"]
    assert ours["forgets"] > theirs["forgets"] - 0.01


@pytest.mark.parametrize("loss", ["dft", "masked"])
def test_what_the_base_finds_improbable_is_not_learnt(worlds, loss):
    ours, theirs = worlds.trained("contradicting", 5e-3, loss, 300.0), worlds.trained("contradicting", 5e-3)
    assert theirs["believes"] > 1
    assert ours["believes"] < 0.5 * theirs["believes"]
    assert ours["forgets"] < 0.05 < 0.2 < theirs["forgets"]
    assert ours["learns"] > 0.1


def test_dft_is_no_help_where_every_row_is_new_to_the_base(worlds):
    ours, theirs = worlds.trained("plain", 2e-2, "dft"), worlds.trained("plain", 3e-3)
    assert ours["learns"] < theirs["learns"]
    assert ours["forgets"] > theirs["forgets"]


def test_masked_is_no_help_where_nothing_is_improbable(worlds):
    ours, theirs = worlds.trained("agreeing", 5e-3, "masked", 300.0), worlds.trained("agreeing", 5e-3)
    assert ours["forgets"] == pytest.approx(theirs["forgets"], abs=0.01)
    assert ours["learns"] == pytest.approx(theirs["learns"], abs=0.02)


@pytest.mark.parametrize(("block", "size", "helps"), [(0, 0.3, True), (-1, 0.8, False)])
def test_strength_that_rises_with_depth_forgets_less_where_early_blocks_do_the_harm(worlds, block, size, helps):
    """A trained adapter whose early, or last, block gets a harmful update beside."""
    settings = changed(learning_rate=3e-3)
    with peft_adapter.adapted(worlds.loaded, Lora(rank=4), 0) as model:
        before = worlds.losses(model)
        inputs = trainer.TrainingInputs(model, PAD, worlds.rows["plain"], settings, lambda _: None, NEVER)
        trainer.fit(inputs, trainer.beginning(model, settings))
        numbers = sorted({int(name.split(".layers.")[1].split(".")[0]) for name in trainer.trainable(model)})
        harmed = f".layers.{numbers[block]}."
        with torch.no_grad():
            for name, weight in trainer.trainable(model).items():
                if harmed in name and "lora_B" in name:
                    weight += size * torch.randn(weight.shape, generator=torch.Generator().manual_seed(0))
        whole = worlds.losses(model)
        derived.strengthen(model, 1.0, 0.0)
        rising = worlds.losses(model)
    harm, left = whole["problems"] - before["problems"], rising["problems"] - before["problems"]
    assert harm > 0.2
    if helps:
        assert left < 0.3 * harm
        assert before["instructions"] - rising["instructions"] > 0.3
    else:
        assert left > 0.5 * harm
