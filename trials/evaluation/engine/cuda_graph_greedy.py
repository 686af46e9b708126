"""Greedy decoding on a GPU: a step is one CUDA graph over fixed slots, and the host reads its tokens while the next step runs.

A step of a small model is a thousand kernels of some microseconds each; launching them one by one takes several times as
long. The tokens are those of greedy.py, which begins the rows here too.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from transformers.cache_utils import DynamicLayer

from trials.evaluation.engine import greedy as decode
from trials.evaluation.engine import shared_prefix
from trials.evaluation.engine.greedy import Flight, Row
from trials.evaluation.engine.kv_cache import PrefixCache
from trials.models import cuda_graphs

_ALIGNED = 16
"""The width is a multiple of it, as attention kernels read so many positions at once."""
_COLUMNS = 256
"""A step reads a multiple of so many positions of each slot; each multiple has its graph."""


class _SlotLayer(DynamicLayer):
    """A layer's keys and values, (slots, heads, width, head width) each. A slot uses its first `at` positions."""

    def __init__(self, slots: "Slots"):
        super().__init__()
        self.slots = slots

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Adds one position to every slot."""
        keys, values = self._rooms(key_states, value_states)
        for room, states in ((keys, key_states), (values, value_states)):
            room[self.slots.numbers, :, self.slots.at] = states[:, :, 0]
        return keys[:, :, : self.slots.shown], values[:, :, : self.slots.shown]

    def put(self, slots: torch.Tensor, places: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> None:
        """Copies the states at `places`, (rows, positions), to the first positions of these slots."""
        for room, states in zip(self._rooms(keys, values), (keys, values), strict=True):
            index = places[:, None, :, None].expand(-1, states.shape[1], -1, states.shape[3])
            room[slots, :, : places.shape[1]] = states.gather(2, index)

    def _rooms(self, *both: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(*both)
            count, width = len(self.slots.numbers), self.slots.width
            self.keys, self.values = (one.new_zeros(count, one.shape[1], width, one.shape[3]) for one in both)
        assert self.keys is not None
        assert self.values is not None
        return self.keys, self.values


class Slots:
    """Room for `count` rows, each with `width` positions of its own after the `beginning` that all share."""

    def __init__(self, model: Any, beginning: PrefixCache, count: int, width: int):
        self.model = model
        self.longest, self.width = width, -(-width // _ALIGNED) * _ALIGNED
        self.shown = self.width
        self.numbers = torch.arange(count, device=model.device)
        self.columns = torch.arange(self.width, device=model.device)
        self.token = torch.zeros(count, 1, dtype=torch.long, device=model.device)
        self.at = torch.zeros(count, dtype=torch.long, device=model.device)
        self.cache = beginning.emptied()
        self.cache.layers = [_SlotLayer(self) for _ in self.cache.layers]
        self.cache.in_slots = shared_prefix.reads(model)
        self._read = [torch.empty(count, dtype=torch.long, pin_memory=model.device.type == "cuda") for _ in range(2)]
        self._graphs: dict[int, torch.cuda.CUDAGraph | None] = {}
        self._pool: tuple[int, int] | None = None

    def put(self, flight: Flight, slots: Sequence[int]) -> None:
        """Puts the flight's rows, whose first tokens are chosen, into these slots."""
        device = self.at.device
        numbers = torch.tensor(slots, device=device)
        lengths, longest = flight.seen.sum(dim=1), flight.seen.shape[1]
        # to the slot's left end, so that every row goes on from its own end; no mask shows what lies behind it
        places = (torch.arange(longest, device=device) + (longest - lengths)[:, None]).clamp(max=longest - 1)
        for room, layer in zip(self.cache.layers, flight.cache.layers, strict=True):
            room.put(numbers, places, layer.keys, layer.values)
        self.at[numbers] = lengths
        self.token[numbers, 0] = torch.tensor([row.generated[-1] for row in flight.rows], device=device)

    def step(self, needed: int) -> Callable[[], list[int]]:
        """Starts the choice of every slot's next token; the returned function waits for the tokens and returns them.

        `needed`: own positions of the longest row in use. At most two steps may be unread, since there are two buffers.
        """
        self.shown = min(-(-needed // _COLUMNS) * _COLUMNS, self.width)
        graph = self._graph() if self.at.device.type == "cuda" else None
        graph.replay() if graph else self._choose()
        tokens = self._read[0]
        self._read.reverse()
        tokens.copy_(self.token[:, 0], non_blocking=True)
        if self.at.device.type != "cuda":
            return tokens.tolist
        done = torch.cuda.Event()
        done.record()

        def read() -> list[int]:
            done.synchronize()
            found: list[int] = tokens.tolist()
            return found

        return read

    def _graph(self) -> torch.cuda.CUDAGraph | None:
        if self.shown not in self._graphs:
            state = [one.clone() for one in (self.token, self.at)]

            def make() -> torch.cuda.CUDAGraph:
                for one, before in zip((self.token, self.at), state, strict=True):
                    one.copy_(before)  # a capture is preceded by warm-up runs, which change them
                graph, _ = cuda_graphs.captured(self._choose, self._pool)
                self._pool = graph.pool()
                return graph

            self._graphs[self.shown] = cuda_graphs.tried(self.model, self._choose, make)
        return self._graphs[self.shown]

    def close(self) -> None:
        """Frees the memory: the layers and this object refer to each other."""
        self._graphs.clear()
        self.cache.layers = []

    def _choose(self) -> None:
        mask = (self.columns[: self.shown] <= self.at[:, None])[:, None, None]
        if not self.cache.in_slots:  # transformers' own attentions take a mask that is added
            mask = torch.zeros_like(mask, dtype=self.model.dtype).masked_fill_(~mask, torch.finfo(self.model.dtype).min)
        with shared_prefix.attending(self.model, self.cache):
            logits = self.model(
                self.token,
                attention_mask=mask,
                position_ids=self.at[:, None] + self.cache.shared,
                past_key_values=self.cache,
                use_cache=True,
                logits_to_keep=1,
            ).logits
        self.token.copy_(logits[:, -1].float().argmax(dim=-1, keepdim=True))
        self.at.add_(1).clamp_(max=self.longest - 1)  # unused slots step along


def greedy(model: Any, rows: Sequence[Row], most: int, batch: int, ends: Callable[[list[int]], bool]) -> None:
    """`greedy.greedy` in as many slots as rows may be under way at once."""
    if not rows:
        return
    beginning = decode.shared_beginning(model, rows)
    for some in _bands(rows, beginning.shared, most):
        slots = Slots(model, beginning, min(batch, len(some)), len(some[0].prompt) - beginning.shared + most)
        try:
            _Run(slots, beginning, most, ends).run(some, batch)
        finally:
            slots.close()


def _bands(rows: Sequence[Row], shared: int, most: int) -> Iterator[list[Row]]:
    """The rows, longest first, in parts that waste less than half of their slots: every slot is as long as its part's first."""
    part: list[Row] = []
    for row in sorted(rows, key=lambda row: -len(row.prompt)):
        if part and 2 * (len(row.prompt) - shared + most) <= len(part[0].prompt) - shared + most:
            yield part
            part = []
        part.append(row)
    yield part


class _Run:
    """Rows on their way through the slots."""

    def __init__(self, slots: Slots, beginning: PrefixCache, most: int, ends: Callable[[list[int]], bool]):
        self.slots, self.beginning, self.most, self.ends = slots, beginning, most, ends
        self.held: list[Row | None] = [None] * len(slots.numbers)
        """The row in each slot."""
        self.unread: deque[tuple[list[Row | None], Callable[[], list[int]]]] = deque()
        """Steps whose tokens are not read yet: the rows that were in the slots, and the function that reads the tokens."""

    def run(self, rows: Sequence[Row], batch: int) -> None:
        waiting = deque(rows)
        while waiting or any(self.held):
            free = self.held.count(None)
            if waiting and free >= decode.enough(len(waiting), batch):
                self._begin([waiting.popleft() for _ in range(min(free, len(waiting)))])
            if any(self.held):
                own = max(len(row.prompt) - self.beginning.shared + len(row.generated) for row in self.held if row is not None)
                self.unread.append((list(self.held), self.slots.step(own + len(self.unread))))
            while len(self.unread) > (1 if any(self.held) else 0):
                self._take(*self.unread.popleft())

    def _begin(self, rows: Sequence[Row]) -> None:
        for part in decode.alike(self.slots.model, rows, self.beginning.shared):
            begun = decode.begin(self.slots.model, part, self.beginning.emptied())
            decode.settle(begun, self.most, self.ends)
            if begun.rows:  # else all of them ended with their first token
                free = [slot for slot, row in enumerate(self.held) if row is None][: len(begun.rows)]
                self.slots.put(begun, free)
                for slot, row in zip(free, begun.rows, strict=True):
                    self.held[slot] = row

    def _take(self, rows: Sequence[Row | None], read: Callable[[], list[int]]) -> None:
        for slot, (row, token) in enumerate(zip(rows, read(), strict=True)):
            # a row's end is noticed one step late; its slot's token of that step is dropped
            if row is not None and self.held[slot] is row:
                row.generated.append(token)
                if decode.over(row, self.most, self.ends):
                    self.held[slot] = None
