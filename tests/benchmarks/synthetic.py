"""A random Llama with a tokenizer of its own, and documents of random words, of the real benchmarks' lengths, as a hub mirror.

Nothing is downloaded and no word means anything: what is measured is time. The documents are read by lm-eval's own task
classes, since they lie under the real data sets' names in the real columns. Lengths are drawn around the real means with a
standard deviation of half the mean; a word is a token.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

MODEL = "synthetic/llama"
SHAPES: dict[str, dict[str, int]] = {
    # of meta-llama/Llama-3.2-1B
    "1b": {
        "vocab_size": 128_256,
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "num_hidden_layers": 16,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 64,
    },
    "tiny": {
        "vocab_size": 4096,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
    },
}
GENERATED = 103
"""Tokens of a response to a GSM8K problem, mean."""
SUBJECTS = ("college_computer_science", "high_school_computer_science")
_FRAME = (
    "Question: Answer: Answer A B C D A. B. C. D. Q: #### Below is an instruction that describes a task. Write a response "
    "that appropriately completes the request. ### Instruction: Response: The following are multiple choice questions (with "
    "answers) about college high school computer science."
)
"""What templates and tasks write around the documents."""


@dataclass(frozen=True)
class Sizes:
    """Documents of each benchmark, and rows to train on."""

    hellaswag: int = 10_042
    gsm8k: int = 1_319
    mmlu: int = 100
    """Of each subject."""
    rows: int = 2_000

    def share(self, share: float, rows: int) -> "Sizes":
        return Sizes(*(max(4, round(size * share)) for size in (self.hellaswag, self.gsm8k, self.mmlu)), rows)


class Words:
    """Random words of the vocabulary, in texts of random lengths."""

    def __init__(self, vocabulary: list[str], seed: int):
        self._random = np.random.default_rng(seed)
        self._vocabulary = vocabulary

    def text(self, mean: float, least: int = 3) -> str:
        """About so many words: a gamma distribution of shape 4."""
        count = max(least, round(self._random.gamma(4.0, mean / 4.0)))
        return " ".join(self._vocabulary[i] for i in self._random.integers(len(self._vocabulary), size=count))

    def number(self, below: int) -> int:
        return int(self._random.integers(below))


def write(mirror: Path, shape: str, sizes: Sizes, dtype: str) -> None:
    """Fills an empty folder with model, tokenizer and data sets."""
    vocabulary = _model(mirror / MODEL, SHAPES[shape], dtype)
    words = Words(vocabulary, 0)
    _alpaca(mirror / "tatsu-lab/alpaca", words, sizes.rows)
    _hellaswag(mirror / "Rowan/hellaswag", words, sizes.hellaswag)
    _gsm8k(mirror / "openai/gsm8k", words, sizes.gsm8k)
    _mmlu(mirror / "cais/mmlu", words, sizes.mmlu)


# ---------------------------------------------------------------------- the model


def _model(folder: Path, shape: dict[str, int], dtype: str) -> list[str]:
    """Writes model and tokenizer; the words that texts are made of.

    A random model would not stop. Its generation settings therefore name as end tokens every so many of the vocabulary that a
    response, each of whose tokens is as good as drawn, ends after GENERATED of them: both programs read the settings. The head
    is not the embedding, or the likeliest next token of a random model would be the last one again.
    """
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    special = ["<unk>", "<pad>", "</s>"]
    known = list(dict.fromkeys([*special, *_FRAME.split(), *map(str, range(100))]))
    words = [f"w{number}" for number in range(shape["vocab_size"] - len(known))]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate([*known, *words])}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()  # type: ignore[assignment]
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", pad_token="<pad>", eos_token="</s>", model_max_length=4096
    ).save_pretrained(str(folder))

    torch.manual_seed(0)
    settings: dict[str, Any] = {
        **shape,
        "max_position_embeddings": 4096,
        "tie_word_embeddings": False,
        "initializer_range": 0.05,
    }
    settings |= {"bos_token_id": None, "eos_token_id": 2, "pad_token_id": 1}
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        model = LlamaForCausalLM(LlamaConfig(**settings)).to(getattr(torch, dtype))
    model.generation_config.eos_token_id = [2, *range(len(known), shape["vocab_size"], GENERATED)]
    model.save_pretrained(str(folder))
    return words


# ---------------------------------------------------------------------- the data sets


def _dataset(folder: Path, parts: dict[tuple[str, str], Iterator[dict[str, Any]]]) -> None:
    """Rows by configuration and split."""
    configs: dict[str, list[str]] = {}
    for (config, split), rows in parts.items():
        path = folder / config / f"{split}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        configs.setdefault(config, []).append(f"  - split: {split}\n    path: {config}/{split}.jsonl\n")
    told = "".join(f"- config_name: {config}\n  data_files:\n{''.join(files)}" for config, files in configs.items())
    (folder / "README.md").write_text(f"---\nconfigs:\n{told}---\nRandom words.\n")


def _many(count: int, row: Callable[[int], dict[str, Any]]) -> Iterator[dict[str, Any]]:
    return (row(number) for number in range(count))


def _alpaca(folder: Path, words: Words, rows: int) -> None:
    """Rows of 111 tokens, 23 of them the template's and the end."""

    def row(_: int) -> dict[str, Any]:
        return {"instruction": words.text(18), "input": "", "output": words.text(70)}

    _dataset(folder, {("default", "train"): _many(rows + 100, row)})  # some are held out


def _hellaswag(folder: Path, words: Words, documents: int) -> None:
    """Contexts of 51 tokens, four endings of 30."""

    def row(number: int) -> dict[str, Any]:
        return {
            "ind": number,
            "activity_label": words.text(1, 1).split()[0],
            "ctx_a": words.text(25),
            "ctx_b": words.text(25),
            "endings": [words.text(30) for _ in range(4)],
            "label": str(words.number(4)),
        }

    _dataset(folder, {("default", "train"): _many(10, row), ("default", "validation"): _many(documents, row)})


def _gsm8k(folder: Path, words: Words, documents: int) -> None:
    """A question of 73 tokens with its frame; with its solution a shot of 160."""

    def row(_: int) -> dict[str, Any]:
        return {"question": words.text(71), "answer": f"{words.text(85)}\n#### {words.number(100)}"}

    _dataset(folder, {("main", "train"): _many(1_000, row), ("main", "test"): _many(documents, row)})


def _mmlu(folder: Path, words: Words, documents: int) -> None:
    """Questions of 114 tokens with their choices and the description."""

    def row(_: int) -> dict[str, Any]:
        choices = [words.text(10) for _ in range(4)]
        return {"question": words.text(57), "subject": "synthetic", "choices": choices, "answer": words.number(4)}

    splits = [("test", documents), ("dev", 5)]
    _dataset(folder, {(subject, split): _many(size, row) for subject in SUBJECTS for split, size in splits})
