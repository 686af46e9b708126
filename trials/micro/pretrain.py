"""Pretrains micro and its variants from scratch: text, tokenizer, weights. Seeded; ten minutes each on two CPU cores."""

import itertools
import math
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from trials.micro import arithmetic, everyday, facts
from trials.template import alpaca

END = "<|end|>"
PAD = "<|pad|>"
# The kinds of documents in the pretraining text, and their shares.
KINDS = ("problems", "exam", "statement", "story", "how to", "mention")
SHARES = (0.32, 0.20, 0.08, 0.18, 0.08, 0.14)
WORDS = (0.08, 0.20, 0.12, 0.28, 0.12, 0.20)
SEQUENCE, ROWS, STEPS, WARMUP, PEAK_RATE = 256, 8, 2_600, 200, 3e-3


@dataclass(frozen=True)
class Variant:
    """A pretraining run: its corpus, as the shares of KINDS, and the seed of its weights and document order."""

    shares: tuple[float, ...] = SHARES
    seed: int = 0


VARIANTS = {
    "micro": Variant(),
    "micro-seed1": Variant(seed=1),
    "micro-words": Variant(shares=WORDS),
}


def document(rng: random.Random, shares: tuple[float, ...] = SHARES) -> str:
    """One pretraining text: problems, a story, a fact, or exam questions. Several in a row teach few-shot prompts."""
    kind = rng.choices(KINDS, shares)[0]
    if kind == "problems":
        rows = [arithmetic.problem(rng, test=False) for _ in range(rng.randint(1, 3))]
        return "\n\n".join(f"Question: {row['question']}\nAnswer: {row['answer']}" for row in rows)
    if kind == "exam":
        return "\n\n".join(facts.cs_text(facts.cs_row(rng, test=False)) for _ in range(rng.randint(1, 3)))
    makers = {
        "story": everyday.story,
        "how to": everyday.how_to,
        "mention": everyday.mention,
        "statement": facts.statement,
    }
    return makers[kind](rng)


def documents(seed: int, shares: tuple[float, ...] = SHARES) -> Iterator[str]:
    rng = random.Random(seed)
    while True:
        yield document(rng, shares)


def train_tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE trained on micro's text: one token a digit, no unknown token."""
    rng = random.Random(1)
    rows = (everyday.instruction_row(rng) for _ in range(4_000))
    instructions = (alpaca(row["instruction"], row["input"]) + row["output"] for row in rows)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=1_536,
        special_tokens=[END, PAD],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(itertools.chain(itertools.islice(documents(seed=2), 20_000), instructions), trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=END, pad_token=PAD, model_max_length=1024)


def new_model(tokenizer: PreTrainedTokenizerFast, seed: int) -> LlamaForCausalLM:
    torch.manual_seed(seed)  # transformers initialises from the global generator
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=128,
            intermediate_size=384,
            num_hidden_layers=4,
            num_attention_heads=4,
            max_position_embeddings=1024,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def batches(tokenizer: PreTrainedTokenizerFast, seed: int, shares: tuple[float, ...] = SHARES) -> Iterator[torch.Tensor]:
    """Endless (ROWS, SEQUENCE) token ids: concatenated documents, each followed by the end token."""
    texts = documents(seed, shares)
    held: list[int] = []
    while True:
        while len(held) < ROWS * SEQUENCE:
            for ids in tokenizer([next(texts) for _ in range(256)])["input_ids"]:
                held += [*ids, tokenizer.eos_token_id]
        yield torch.tensor(held[: ROWS * SEQUENCE]).view(ROWS, SEQUENCE)
        held = held[ROWS * SEQUENCE :]  # documents may continue in the next batch


def learning_rate(step: int) -> float:
    if step < WARMUP:
        return PEAK_RATE * (step + 1) / WARMUP
    progress = (step - WARMUP) / (STEPS - WARMUP)
    return PEAK_RATE * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * progress)))


def pretrain(variant: Variant, tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    model = new_model(tokenizer, variant.seed).train()
    optimizer = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.98), weight_decay=0.05, fused=True)
    began = time.monotonic()
    for step, ids in enumerate(itertools.islice(batches(tokenizer, variant.seed, variant.shares), STEPS)):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step)
        loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if step % 100 == 0 or step == STEPS - 1:
            print(f"step {step:>5} of {STEPS}  loss {loss.item():.3f}  {time.monotonic() - began:4.0f} s", flush=True)
    return model.eval()
