"""Greedy decoding in which a row leaves the batch as it stops and the next prompt takes its place.

The tokens are those that transformers' `generate` chooses. `generate` goes on until the last row of its batch has stopped, and
with several stop strings until all rows have produced the same one or an end token; those steps are saved.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from trials.data.batching import ENOUGH, fits_in
from trials.evaluation.engine import shared_prefix
from trials.evaluation.engine.kv_cache import PrefixCache

_SPARE = 8
"""Padding that all rows have is cut off when it is one part in so many of their length."""
_PARTS, _FEWEST = 4, 2
"""On a CPU gold solutions are scored in so many parts, of no fewer rows each."""
_MOST = 2**15
"""Prompt tokens that go through a GPU at once: the keys and values of all are in memory."""


@dataclass
class Row:
    prompt: list[int]
    generated: list[int] = field(default_factory=list)
    stopped: bool = False
    """Whether `ends` ended it, rather than the greatest number of tokens."""
    gold: list[int] = field(default_factory=list)
    """A continuation to score after the prompt."""
    gold_nats: list[float] = field(default_factory=list)
    """The log-likelihood of each of its tokens."""


@dataclass
class Flight:
    """The rows under way, padded on the left to one length."""

    rows: list[Row]
    cache: PrefixCache
    seen: torch.Tensor
    """(rows, length), whether a position is a token and not padding; without the beginning that all share."""

    def keep(self, chosen: set[int]) -> None:
        """Keeps these rows alone."""
        # the last rows take the places of those that leave, so that little is moved
        last = iter(sorted(i for i in chosen if i >= len(chosen)))
        order = [i if i in chosen else next(last) for i in range(len(chosen))]
        self.rows = [self.rows[i] for i in order]
        if not chosen:
            return
        self.seen = self.seen[torch.tensor(order, device=self.seen.device)]
        spare = int(self.seen.long().argmax(dim=1).min())  # columns that are padding in all rows
        if spare < self.seen.shape[1] / _SPARE:
            spare = 0
        self.seen = self.seen[:, spare:]
        for layer in self.cache.layers:
            layer.keep(order)
            if spare:
                layer.keys, layer.values = layer.keys[:, :, spare:], layer.values[:, :, spare:]

    def join(self, other: "Flight") -> None:
        self.rows += other.rows
        length = max(self.seen.shape[1], other.seen.shape[1])
        self.seen = torch.cat([_padded(one.seen, length, -1) for one in (self, other)])
        for mine, theirs in zip(self.cache.layers, other.cache.layers, strict=True):
            mine.keys = torch.cat([_padded(one.keys, length, -2) for one in (mine, theirs)])
            mine.values = torch.cat([_padded(one.values, length, -2) for one in (mine, theirs)])


def greedy(model: Any, rows: Sequence[Row], most: int, batch: int, ends: Callable[[list[int]], bool]) -> None:
    """Generates into the rows, at most `most` tokens each, `batch` rows at once; `ends` says whether tokens end a response."""
    waiting = list(rows)
    beginning = shared_beginning(model, rows)
    flight: Flight | None = None
    while waiting or (flight and flight.rows):
        free = batch - (len(flight.rows) if flight else 0)
        if waiting and free >= enough(len(waiting), batch):
            for coming in alike(model, waiting[:free], beginning.shared):
                begun = begin(model, coming, beginning.emptied())
                settle(begun, most, ends)
                if not flight or not flight.rows:
                    flight = begun
                elif begun.rows:  # else all of them ended with their first token
                    flight.join(begun)
            waiting = waiting[free:]
        if flight and flight.rows:
            _step(model, flight)
            settle(flight, most, ends)


def shared_beginning(model: Any, rows: Sequence[Row]) -> PrefixCache:
    """An empty cache with the keys and values of what all rows begin with."""
    shared = shared_prefix.common(model, [row.prompt[:-1] for row in rows])
    return shared_prefix.beginning(model, rows[0].prompt[:shared]) if rows else PrefixCache(model.config)


def enough(waiting: int, batch: int) -> int:
    """Free places to wait for before more prompts are run: a pass over the prompts of a few rows costs as much as a step."""
    return min(waiting, max(1, batch // 4))


def alike(model: Any, rows: Sequence[Row], shared: int) -> Iterator[list[Row]]:
    """The rows, which are sorted by length, in parts that go through the model together."""
    most = _MOST if model.device.type == "cuda" else math.inf
    part: list[Row] = []
    for row in rows:
        longest = len((part or [row])[0].prompt) - shared
        full = (len(part) + 1) * longest > most
        if part and (full or not fits_in(len(row.prompt) - shared, len(part), longest, model.device)):
            yield part
            part = []
        part.append(row)
    yield part


def begin(model: Any, rows: list[Row], cache: PrefixCache) -> Flight:
    """Runs the prompts and chooses each row's first token."""
    prompts = [row.prompt[cache.shared :] for row in rows]
    longest = max(map(len, prompts))
    ids = torch.zeros(len(rows), longest, dtype=torch.long)
    seen = torch.zeros(len(rows), longest, dtype=torch.bool)
    for i, prompt in enumerate(prompts):
        ids[i, longest - len(prompt) :] = torch.tensor(prompt)
        seen[i, longest - len(prompt) :] = True
    flight = Flight(list(rows), cache, seen.to(model.device))
    logits = _logits(model, ids.to(model.device), flight, logits_to_keep=1)
    for row, token in zip(rows, _likeliest(logits), strict=True):
        row.generated.append(token)
    if any(row.gold for row in rows):
        _score(model, flight, logits)
    return flight


def _logits(model: Any, ids: torch.Tensor, flight: Flight, **wanted: Any) -> torch.Tensor:
    """Logits of the tokens `ids`, (rows, length), which are the flight's last positions; adds them to its cache."""
    seen, length = flight.seen, ids.shape[1]
    mask: torch.Tensor | None = seen
    if flight.cache.beginning:
        causal = torch.ones(length, seen.shape[1], dtype=torch.bool, device=seen.device).tril(seen.shape[1] - length)
        mask = seen[:, None, None] & causal
    elif length == 1 and bool(seen.all()):
        mask = None
    with shared_prefix.attending(model, flight.cache):
        out = model(
            ids,
            attention_mask=mask,
            position_ids=_places(seen)[:, -length:] + flight.cache.shared,
            past_key_values=flight.cache,
            use_cache=True,
            **wanted,
        )
    found: torch.Tensor = out.logits
    return found


def _score(model: Any, flight: Flight, first: torch.Tensor) -> None:
    """Fills in the gold's log-likelihoods, given the logits after the prompts. The flight stays as it was."""
    order = sorted((i for i, row in enumerate(flight.rows) if row.gold), key=lambda i: len(flight.rows[i].gold))
    for part in _golds(model, flight, order):
        rows = [flight.rows[i] for i in part]
        logits = _after(model, Flight(rows, flight.cache.of(part), flight.seen[part]), first[part, -1:])
        for row, of_row in zip(rows, logits, strict=True):
            nats = torch.log_softmax(of_row[: len(row.gold)], dim=-1, dtype=torch.float32)
            gold = torch.tensor(row.gold, dtype=torch.long, device=nats.device)
            row.gold_nats = nats.gather(1, gold[:, None])[:, 0].tolist()


def _golds(model: Any, flight: Flight, order: list[int]) -> Iterator[list[int]]:
    """Numbers of the rows, in parts of golds of about one length: one solution may be five times as long as another."""
    if model.device.type != "cuda":
        size = max(_FEWEST, math.ceil(len(order) / _PARTS))
        yield from (order[i : i + size] for i in range(0, len(order), size))
        return
    part: list[int] = []
    for i in order:
        if part and (len(part) + 1) * len(flight.rows[i].gold) > ENOUGH["cuda"]:  # their logits are in memory, too
            yield part
            part = []
        part.append(i)
    yield part


def _after(model: Any, flight: Flight, first: torch.Tensor) -> torch.Tensor:
    """The logits that predict the rows' gold; `first` are those of the first token."""
    longest = max(len(row.gold) for row in flight.rows) - 1
    if longest == 0:
        return first
    ids = torch.zeros(len(flight.rows), longest, dtype=torch.long, device=model.device)
    given = torch.zeros(len(flight.rows), longest, dtype=torch.bool)  # padding is at the position of the last token
    for i, row in enumerate(flight.rows):
        ids[i, : len(row.gold) - 1] = torch.tensor(row.gold[:-1], device=model.device)
        given[i, : len(row.gold) - 1] = True
    flight.seen = torch.cat([flight.seen, given.to(model.device)], dim=1)
    return torch.cat([first, _logits(model, ids, flight)], dim=1)


def _step(model: Any, flight: Flight) -> None:
    flight.seen = torch.nn.functional.pad(flight.seen, (0, 1), value=True)
    ids = torch.tensor([row.generated[-1:] for row in flight.rows], device=model.device)
    for row, token in zip(flight.rows, _likeliest(_logits(model, ids, flight, logits_to_keep=1)), strict=True):
        row.generated.append(token)


def settle(flight: Flight, most: int, ends: Callable[[list[int]], bool]) -> None:
    """Lets rows that have ended go."""
    staying = {i for i, row in enumerate(flight.rows) if not over(row, most, ends)}
    if len(staying) < len(flight.rows):
        flight.keep(staying)


def over(row: Row, most: int, ends: Callable[[list[int]], bool]) -> bool:
    """Whether the row's newest token was its last; sets `row.stopped`."""
    row.stopped = ends(row.generated)
    return row.stopped or len(row.generated) >= most


def _places(seen: torch.Tensor) -> torch.Tensor:
    """Positions of the tokens, counted without padding; any position for padding."""
    return (seen.long().cumsum(dim=1) - 1).clamp(min=0)


def _likeliest(logits: torch.Tensor) -> list[int]:
    return logits[:, -1].float().argmax(dim=-1).tolist()


def _padded(values: torch.Tensor, length: int, dim: int) -> torch.Tensor:
    """The values with zeros before them, up to the length."""
    missing = length - values.shape[dim]
    if not missing:
        return values
    return torch.nn.functional.pad(values, (missing, 0) if dim == -1 else (0, 0, missing, 0))
