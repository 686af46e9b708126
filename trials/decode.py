"""Greedy decoding in which a row leaves the batch as it stops and the next prompt takes its place.

The tokens are those that transformers' `generate` chooses. What is saved are the steps of rows that have stopped already:
`generate` goes on until the last row of its batch has stopped, and with several stop strings until all rows have met the
same one or the end token. What a gold solution costs after the prompt is told from the same pass over the prompt.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import DynamicCache

from trials import past, prefix

_SPARE = 8
"""Padding that all rows have is cut off when it is this part of their length: the past is laid out anew for it."""


@dataclass
class Row:
    prompt: list[int]
    generated: list[int] = field(default_factory=list)
    stopped: bool = False
    """By itself, and not at the most tokens allowed."""
    gold: list[int] = field(default_factory=list)
    """What could have followed, to be scored along."""
    gold_nats: list[float] = field(default_factory=list)
    """The log-likelihood of each of its tokens."""


@dataclass
class _Flight:
    """The rows under way: their past, padded on the left to one length, and what each goes on with."""

    rows: list[Row]
    past: DynamicCache
    seen: torch.Tensor
    """(rows, length), whether a position is a token and not padding."""

    def keep(self, chosen: set[int]) -> None:
        """These rows alone; the last ones take the places of those that leave, so that little is moved."""
        last = iter(sorted(i for i in chosen if i >= len(chosen)))
        order = [i if i in chosen else next(last) for i in range(len(chosen))]
        self.rows = [self.rows[i] for i in order]
        if not chosen:
            return
        self.seen = self.seen[torch.tensor(order, device=self.seen.device)]
        spare = int(self.seen.long().argmax(dim=1).min())  # columns that are padding to all who stay
        if spare < self.seen.shape[1] / _SPARE:
            spare = 0
        self.seen = self.seen[:, spare:]
        layers: Any = self.past.layers  # of past.empty
        for layer in layers:
            layer.keep(order)
            if spare:
                layer.keys, layer.values = layer.keys[:, :, spare:], layer.values[:, :, spare:]

    def join(self, other: "_Flight") -> None:
        self.rows += other.rows
        length = max(self.seen.shape[1], other.seen.shape[1])
        self.seen = torch.cat([_padded(one.seen, length, -1) for one in (self, other)])
        pairs: Any = zip(self.past.layers, other.past.layers, strict=True)
        for mine, theirs in pairs:
            mine.keys = torch.cat([_padded(one.keys, length, -2) for one in (mine, theirs)])
            mine.values = torch.cat([_padded(one.values, length, -2) for one in (mine, theirs)])


def greedy(model: Any, rows: Sequence[Row], most: int, batch: int, ends: Callable[[list[int]], bool]) -> None:
    """Generates into the rows, at most `most` tokens each, `batch` rows at once; `ends` says whether tokens end a response."""
    waiting = list(rows)
    flight: _Flight | None = None
    while waiting or (flight and flight.rows):
        free = batch - (len(flight.rows) if flight else 0)
        if waiting and free >= min(len(waiting), max(1, batch // 4)):  # a pass over prompts for a few rows costs as a step
            begun = _begun(model, waiting[:free])
            waiting = waiting[free:]
            _settle(begun, most, ends)
            if not flight or not flight.rows:
                flight = begun
            elif begun.rows:  # and not all of them ended with their first token
                flight.join(begun)
        if flight and flight.rows:
            _step(model, flight)
            _settle(flight, most, ends)


def _begun(model: Any, rows: list[Row]) -> _Flight:
    """The rows with their prompts run and their first token chosen."""
    shared = prefix.common([row.prompt[:-1] for row in rows])
    longest = max(len(row.prompt) for row in rows) - shared
    ids = torch.zeros(len(rows), longest, dtype=torch.long, device=model.device)
    seen = torch.zeros(len(rows), shared + longest, dtype=torch.bool, device=model.device)
    seen[:, :shared] = True
    for i, row in enumerate(rows):
        rest = torch.tensor(row.prompt[shared:], device=model.device)
        ids[i, longest - len(rest) :] = rest
        seen[i, shared + longest - len(rest) :] = True
    kept = prefix.cache(model, rows[0].prompt[:shared], len(rows)) or past.empty(model.config)
    out = model(
        ids,
        attention_mask=seen,
        position_ids=_places(seen)[:, shared:],
        past_key_values=kept,
        use_cache=True,
        logits_to_keep=1,
    )
    for row, token in zip(rows, _likeliest(out.logits), strict=True):
        row.generated.append(token)
    if any(row.gold for row in rows):
        _score(model, rows, kept, seen, out.logits)
    return _Flight(list(rows), kept, seen)


def _score(model: Any, rows: list[Row], kept: DynamicCache, seen: torch.Tensor, first: torch.Tensor) -> None:
    """Fills in the gold's log-likelihoods, given the logits after the prompts; the past is left as it was."""
    longest = max(len(row.gold) for row in rows) - 1
    logits = first[:, -1:]
    if longest > 0:
        ids = torch.zeros(len(rows), longest, dtype=torch.long, device=model.device)
        for i, row in enumerate(rows):
            ids[i, : len(row.gold) - 1] = torch.tensor(row.gold[:-1], device=model.device)
        wider = torch.nn.functional.pad(seen, (0, longest), value=True)  # causal: no gold token sees the padding after it
        rest = model(
            ids,
            attention_mask=wider,
            position_ids=_places(wider)[:, -longest:],
            past_key_values=kept,
            use_cache=True,
        ).logits
        kept.crop(-longest)
        logits = torch.cat([logits, rest], dim=1)
    for row, of_row in zip(rows, logits, strict=True):
        nats = torch.log_softmax(of_row[: len(row.gold)], dim=-1, dtype=torch.float32)
        gold = torch.tensor(row.gold, dtype=torch.long, device=nats.device)
        row.gold_nats = nats.gather(1, gold[:, None])[:, 0].tolist()


def _step(model: Any, flight: _Flight) -> None:
    flight.seen = torch.nn.functional.pad(flight.seen, (0, 1), value=True)
    out = model(
        torch.tensor([row.generated[-1:] for row in flight.rows], device=model.device),
        attention_mask=None if bool(flight.seen.all()) else flight.seen,
        position_ids=_places(flight.seen)[:, -1:],
        past_key_values=flight.past,
        use_cache=True,
        logits_to_keep=1,
    )
    for row, token in zip(flight.rows, _likeliest(out.logits), strict=True):
        row.generated.append(token)


def _settle(flight: _Flight, most: int, ends: Callable[[list[int]], bool]) -> None:
    """Lets the rows go that have ended."""
    for row in flight.rows:
        row.stopped = ends(row.generated)
    staying = {i for i, row in enumerate(flight.rows) if not row.stopped and len(row.generated) < most}
    if len(staying) < len(flight.rows):
        flight.keep(staying)


def _places(seen: torch.Tensor) -> torch.Tensor:
    """Positions of the tokens among the tokens, from 0; of padding anything that is one."""
    return (seen.long().cumsum(dim=1) - 1).clamp(min=0)


def _likeliest(logits: torch.Tensor) -> list[int]:
    return logits[:, -1].float().argmax(dim=-1).tolist()


def _padded(values: torch.Tensor, length: int, dim: int) -> torch.Tensor:
    """With zeros before them, up to the length."""
    missing = length - values.shape[dim]
    if not missing:
        return values
    return torch.nn.functional.pad(values, (missing, 0) if dim == -1 else (0, 0, missing, 0))
