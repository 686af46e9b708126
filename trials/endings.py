"""The log-likelihoods of continuations that share their context, with the context run through the model once.

A row is a context and its continuations one after the other; a mask hides each from the others, and all count their positions
from the context's end. What all contexts of a batch begin with (few-shot examples, as a rule) is run once for all of them.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from trials import prefix


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
        if chunk and sum(len(questions[i].endings) for i in [*chunk, number]) > endings:
            yield chunk
            chunk = []
        chunk.append(number)
    if chunk:
        yield chunk


def score(model: Any, batch: Sequence[Question], softmax: torch.dtype | None) -> list[list[tuple[float, bool]]]:
    """(log-likelihood in nats, whether every token is the likeliest one) of every ending of every question."""
    shared = prefix.common([question.context[:-1] for question in batch])
    widest = max(len(question.context) for question in batch) - shared
    width = widest + max(question.length - len(question.context) for question in batch)
    rows = torch.zeros(len(batch), width, dtype=torch.long)
    places = torch.zeros_like(rows)
    part = torch.full_like(rows, -1)  # 0 the context, then the endings by number; -1 padding
    for i, question in enumerate(batch):
        at, place = widest - (len(question.context) - shared), shared
        for number, ids in enumerate([question.context[shared:], *(ending[:-1] for ending in question.endings)]):
            span = slice(at, at + len(ids))
            rows[i, span] = torch.tensor(ids, dtype=torch.long)
            places[i, span] = torch.arange(place, place + len(ids))
            part[i, span] = number
            at, place = at + len(ids), len(question.context)
    sees = ((part[:, :, None] == part[:, None, :]) | (part[:, None, :] == 0)).tril()
    sees |= torch.eye(width, dtype=torch.bool)  # padding sees itself, since a softmax over nothing is no number
    hidden = torch.zeros(sees.shape, dtype=model.dtype).masked_fill_(~sees, torch.finfo(model.dtype).min)
    logits = model(
        rows.to(model.device),
        attention_mask=torch.nn.functional.pad(hidden, (shared, 0))[:, None].to(model.device),
        position_ids=places.to(model.device),
        past_key_values=prefix.cache(model, batch[0].context[:shared], len(batch)),
        use_cache=shared > 0,
        logits_to_keep=width - widest + 1,  # from the context's last token on
    ).logits
    return _read(batch, logits, softmax)


def _read(batch: Sequence[Question], logits: torch.Tensor, softmax: torch.dtype | None) -> list[list[tuple[float, bool]]]:
    """The answers, from the logits of every row's last token of the context and of the endings after it."""
    where: list[tuple[int, int, int]] = []  # row, column and the token that is to follow
    for i, question in enumerate(batch):
        at = 1
        for ending in question.endings:
            where += [(i, 0, ending[0]), *((i, at + j, token) for j, token in enumerate(ending[1:]))]
            at += len(ending) - 1
    row, column, token = torch.tensor(where, device=logits.device).T
    nats = torch.log_softmax(logits[row, column], dim=-1, dtype=softmax)
    likeliest = nats.argmax(dim=-1) == token
    of_token = nats.gather(1, token[:, None])[:, 0]
    lengths = [len(ending) for question in batch for ending in question.endings]
    pairs = zip(of_token.split(lengths), likeliest.split(lengths), strict=True)
    answers = [(float(one.sum()), bool(right.all())) for one, right in pairs]
    return [[answers.pop(0) for _ in question.endings] for question in batch]
