"""The log-likelihoods of continuations that share their context, with the context run through the model once.

A row is a context and its continuations one after the other; a mask hides each from the others, and all count their positions
from the context's end. What all contexts of a batch begin with (few-shot examples, as a rule) is run once for all of them.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from trials import prefix
from trials.batch import fits_in
from trials.head import logits_at


@dataclass
class Question:
    """A context and its continuations, as token numbers; neither is empty."""

    context: list[int]
    endings: list[list[int]]

    @property
    def length(self) -> int:
        """Positions of its row: every continuation's last token is only predicted."""
        return len(self.context) + sum(len(ending) - 1 for ending in self.endings)


def batches(questions: Sequence[Question], endings: int) -> Iterator[list[int]]:
    """Numbers of the questions, those of about one length together: at most so many endings a batch, or one question."""
    chunk: list[int] = []
    for number in sorted(range(len(questions)), key=lambda i: (-questions[i].length, questions[i].context)):
        full = sum(len(questions[i].endings) for i in [*chunk, number]) > endings
        if chunk and (full or not fits_in(questions[number].length, len(chunk), questions[chunk[0]].length)):
            yield chunk
            chunk = []
        chunk.append(number)
    if chunk:
        yield chunk


def score(model: Any, batch: Sequence[Question], softmax: torch.dtype | None) -> list[list[tuple[float, bool]]]:
    """(log-likelihood in nats, whether every token is the likeliest one) of every ending of every question."""
    shared = prefix.common(model, [question.context[:-1] for question in batch])
    past = prefix.beginning(model, batch[0].context[:shared])
    width = max(question.length for question in batch) - shared
    rows = torch.zeros(len(batch), width, dtype=torch.long)
    places = torch.zeros_like(rows)
    part = torch.full_like(rows, -1)  # 0 the context, then the endings by number; -1 padding
    predict = torch.zeros_like(rows, dtype=torch.bool)
    for i, question in enumerate(batch):
        at, place = 0, shared
        for number, ids in enumerate([question.context[shared:], *(ending[:-1] for ending in question.endings)]):
            span = slice(at, at + len(ids))
            rows[i, span] = torch.tensor(ids, dtype=torch.long)
            places[i, span] = torch.arange(place, place + len(ids))
            part[i, span] = number
            at, place = at + len(ids), len(question.context)
        predict[i, len(question.context) - shared - 1 : at] = True
    sees = ((part[:, :, None] == part[:, None, :]) | (part[:, None, :] == 0)).tril()
    sees |= torch.eye(width, dtype=torch.bool)  # padding sees itself, since a softmax over nothing is no number
    mask = sees[:, None].to(model.device)
    if not past.beginning:  # transformers' own attentions take a mask that is added
        mask = torch.zeros_like(mask, dtype=model.dtype).masked_fill_(~mask, torch.finfo(model.dtype).min)
    inputs = {
        "input_ids": rows.to(model.device),
        "attention_mask": mask,
        "position_ids": places.to(model.device),
        "past_key_values": past if past.beginning else None,
        "use_cache": bool(past.beginning),
    }
    with prefix.attending(model, past):
        logits = logits_at(model, inputs, predict.to(model.device))
    return _read(batch, logits, softmax)


def _read(batch: Sequence[Question], logits: torch.Tensor, softmax: torch.dtype | None) -> list[list[tuple[float, bool]]]:
    """The answers, from the logits at every question's last token of the context and at its endings' tokens but the last."""
    where: list[tuple[int, int]] = []  # a place among the logits, and the token that is to follow
    begin = 0
    for question in batch:
        at = begin + 1
        for ending in question.endings:
            where += [(begin, ending[0]), *((at + j, token) for j, token in enumerate(ending[1:]))]
            at += len(ending) - 1
        begin = at
    place, token = torch.tensor(where, device=logits.device).T
    nats = torch.log_softmax(logits, dim=-1, dtype=softmax)
    likeliest = nats.argmax(dim=-1)[place] == token
    lengths = [len(ending) for question in batch for ending in question.endings]
    pairs = zip(nats[place, token].split(lengths), likeliest.split(lengths), strict=True)
    answers = [(float(one.sum()), bool(right.all())) for one, right in pairs]
    return [[answers.pop(0) for _ in question.endings] for question in batch]
