"""Log-likelihoods of continuations that share their context, with the context run through the model once.

A row is a context and its continuations one after the other. A mask hides each continuation from the others, and all count
their positions from the context's end. The common prefix of all contexts of a batch is run once (shared_prefix.py).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from trials.data.batching import fits_in, sent
from trials.evaluation.engine import shared_prefix
from trials.models.lm_head import logits_at


@dataclass
class Question:
    """A context and its continuations, as token ids; neither is empty."""

    context: list[int]
    endings: list[list[int]]

    @property
    def length(self) -> int:
        """Positions of its row, in which the last token of every continuation is only predicted."""
        return len(self.context) + sum(len(ending) - 1 for ending in self.endings)


def parts(context: int, endings: Sequence[int], longest: int) -> Iterator[list[int]]:
    """Splits endings of these lengths into rows; yields the numbers of each row's endings."""
    # attention's cost grows with the square of a row's length, so the endings together are about as long as the context; a row
    # of several is no longer than `longest`, since some models have a mask of that size
    most, part, length = min(max(context, 256), longest - context), list[int](), 0
    for number, tokens in enumerate(endings):
        if part and length + tokens > most:
            yield part
            part, length = [], 0
        part.append(number)
        length += tokens
    yield part


def batches(questions: Sequence[Question], endings: int, device: torch.device) -> Iterator[list[int]]:
    """Numbers of the questions in batches of about one length, each of at most `endings` endings, or of one question."""
    chunk: list[int] = []
    for number in sorted(range(len(questions)), key=lambda i: (-questions[i].length, questions[i].context)):
        full = sum(len(questions[i].endings) for i in [*chunk, number]) > endings
        if chunk and (full or not fits_in(questions[number].length, len(chunk), questions[chunk[0]].length, device)):
            yield chunk
            chunk = []
        chunk.append(number)
    if chunk:
        yield chunk


@dataclass
class Scored:
    """The scores of a batch. On a GPU they may still be under way until `read`."""

    nats: torch.Tensor
    """(tokens of all endings): the log-likelihood of each."""
    likeliest: torch.Tensor
    """(tokens of all endings): whether each is the likeliest one."""
    batch: Sequence[Question]

    def read(self) -> list[list[tuple[float, bool]]]:
        """(log-likelihood in nats, whether every token is the likeliest one) of every ending of every question."""
        lengths = [len(ending) for question in self.batch for ending in question.endings]
        pairs = zip(self.nats.cpu().split(lengths), self.likeliest.cpu().split(lengths), strict=True)
        answers = ((float(one.sum()), bool(right.all())) for one, right in pairs)
        return [[next(answers) for _ in question.endings] for question in self.batch]


def score(model: Any, batch: Sequence[Question]) -> Scored:
    """Runs a batch through the model. On a GPU nothing waits for it, so that the next batch is laid out meanwhile."""
    shared = shared_prefix.common(model, [question.context[:-1] for question in batch])
    cache = shared_prefix.beginning(model, batch[0].context[:shared])
    width = max(question.length for question in batch) - shared
    rows, places, part, predict = np.zeros((4, len(batch), width), dtype=np.int64)
    part -= 1  # 0: the context; 1 and more: the endings; -1: padding
    for i, question in enumerate(batch):
        at, place = 0, shared
        for number, ids in enumerate([question.context[shared:], *(ending[:-1] for ending in question.endings)]):
            end = at + len(ids)
            rows[i, at:end], places[i, at:end], part[i, at:end] = ids, range(place, place + len(ids)), number
            at, place = end, len(question.context)
        predict[i, len(question.context) - shared - 1 : at] = 1
    ids, positions, parts = sent(torch.from_numpy(np.stack([rows, places, part])), model.device)
    sees = ((parts[:, :, None] == parts[:, None, :]) | (parts[:, None, :] == 0)).tril()
    sees |= torch.eye(width, dtype=torch.bool, device=sees.device)  # padding sees itself: a softmax over nothing is NaN
    mask = sees[:, None]
    if not cache.beginning:  # transformers' own attentions take a mask that is added
        mask = torch.zeros_like(mask, dtype=model.dtype).masked_fill_(~mask, torch.finfo(model.dtype).min)
    inputs = {
        "input_ids": ids,
        "attention_mask": mask,
        "position_ids": positions,
        "past_key_values": cache if cache.beginning else None,
        "use_cache": bool(cache.beginning),
    }
    with shared_prefix.attending(model, cache):
        logits = logits_at(model, inputs, torch.from_numpy(predict != 0))
    place, token = sent(torch.tensor(_scored_places(batch)), model.device).T
    nats = torch.log_softmax(logits, dim=-1)  # in the model's type, as lm-eval has it
    return Scored(nats[place, token], nats.argmax(dim=-1)[place] == token, batch)


def _scored_places(batch: Sequence[Question]) -> list[tuple[int, int]]:
    """For every token of every ending, the row of the logits that predicts it, and the token.

    The logits are those at each question's last token of the context and at its endings' tokens but the last.
    """
    places: list[tuple[int, int]] = []
    begin = 0
    for question in batch:
        at = begin + 1
        for ending in question.endings:
            places += [(begin, ending[0]), *((at + j, token) for j, token in enumerate(ending[1:]))]
            at += len(ending) - 1
        begin = at
    return places
