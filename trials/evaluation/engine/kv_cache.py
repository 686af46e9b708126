"""KV cache for rows that share their beginning; it grows in place."""

from collections.abc import Sequence
from typing import Any

import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

_AHEAD = 64
"""Further positions that a layer has room for after it is laid out anew."""


class GrowingLayer(DynamicLayer):
    """DynamicLayer without its copy of all keys and values at every step.

    Greedy decoding with SmolLM2-135M's widths, 32 rows on one CPU core, takes a seventh longer with transformers' own layer.
    """

    _rooms: tuple[torch.Tensor, torch.Tensor] | None = None
    """Tensors that `keys` and `values` are the beginnings of. Code that sets `keys` and `values` need not know of them."""

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if self.get_seq_length() == 0:
            self.lazy_initialization(key_states, value_states)
            self.keys, self.values = key_states, value_states
            return key_states, value_states
        keys, values = self._both()
        old, new = keys.shape[-2], keys.shape[-2] + key_states.shape[-2]
        if not self._fits(new):
            self._rooms = (_with_room(keys, new + _AHEAD), _with_room(values, new + _AHEAD))
        assert self._rooms is not None
        for room, states in zip(self._rooms, (key_states, value_states), strict=True):
            room[..., old:new, :] = states
        self.keys, self.values = (room[..., :new, :] for room in self._rooms)
        return self.keys, self.values

    def keep(self, chosen: Sequence[int]) -> None:
        """Keeps the chosen rows in this order; in place if each stays where it was or comes from behind the others."""
        keys, values = self._both()
        moved = [(place, row) for place, row in enumerate(chosen) if place != row]
        if self._rooms and self._fits(keys.shape[-2]) and all(row >= len(chosen) for _, row in moved):
            for room in self._rooms if moved else ():
                to, origin = torch.tensor(moved, device=room.device).T
                room[to] = room[origin]
            self._rooms = (self._rooms[0][: len(chosen)], self._rooms[1][: len(chosen)])
            self.keys, self.values = keys[: len(chosen)], values[: len(chosen)]
        else:
            self.batch_select_indices(torch.tensor(chosen, device=keys.device))

    def _both(self) -> tuple[torch.Tensor, torch.Tensor]:
        assert self.keys is not None
        assert self.values is not None
        return self.keys, self.values

    def _fits(self, length: int) -> bool:
        """Whether keys and values are still the beginnings of the rooms, with space for so many positions."""
        return self._rooms is not None and all(
            part.data_ptr() == room.data_ptr()
            and part.stride() == room.stride()
            and part.shape[:2] == room.shape[:2]
            and length <= room.shape[-2]
            for room, part in zip(self._rooms, self._both(), strict=True)
        )


def _with_room(states: torch.Tensor, length: int) -> torch.Tensor:
    """A copy with room after the states, up to the length."""
    room = states.new_empty((*states.shape[:-2], length, states.shape[-1]))
    room[..., : states.shape[-2], :] = states
    return room


class PrefixCache(DynamicCache):
    """The rows' own keys and values, and those of the beginning that all rows share.

    Only for models whose layers all keep their whole past (shared_prefix.obstacle).
    """

    layers: list[Any]
    """GrowingLayer."""
    in_slots = False
    """Whether the layers show more positions than a row has, so that shared_prefix.attention must read them by the mask."""

    def __init__(self, config: Any, beginning: Sequence[tuple[torch.Tensor, torch.Tensor]] = ()):
        """`beginning`: by layer the shared keys and values, (1, heads, positions, width) each."""
        super().__init__(config=config)
        self.layers = [GrowingLayer() for _ in self.layers]
        self.beginning, self._config = beginning, config

    @property
    def shared(self) -> int:
        """Positions of the beginning."""
        return self.beginning[0][0].shape[2] if self.beginning else 0

    def as_beginning(self) -> "PrefixCache":
        """An empty cache whose beginning is this cache of one row."""
        return PrefixCache(self._config, [(layer.keys, layer.values) for layer in self.layers if layer.is_initialized])

    def emptied(self) -> "PrefixCache":
        """An empty cache with the same beginning."""
        return PrefixCache(self._config, self.beginning)

    def of(self, rows: Sequence[int]) -> "PrefixCache":
        """A copy of these rows alone."""
        made = self.emptied()
        numbers = torch.tensor(rows, device=self.layers[0].keys.device)
        for one, other in zip(made.layers, self.layers, strict=True):
            one.update(other.keys[numbers], other.values[numbers])
        return made
