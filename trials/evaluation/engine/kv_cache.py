"""A model's past that grows in place: transformers' own is copied whole at every step, a third of the time of a step."""

from collections.abc import Sequence
from typing import Any

import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

_AHEAD = 64
"""Positions that there is room for when a layer is laid out anew."""


class Growing(DynamicLayer):
    """A layer's keys and values, (rows, heads, positions, width) each; the same values as DynamicLayer's at any time."""

    _rooms: tuple[torch.Tensor, torch.Tensor] | None = None
    """What `keys` and `values` are the beginnings of, once there was something to grow; whoever sets these may ignore it."""

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if self.get_seq_length() == 0:
            self.lazy_initialization(key_states, value_states)
            self.keys, self.values = key_states, value_states
            return key_states, value_states
        assert self.keys is not None
        assert self.values is not None
        old, new = self.keys.shape[-2], self.keys.shape[-2] + key_states.shape[-2]
        if not self._fit(new):
            self._rooms = (_roomy(self.keys, new + _AHEAD), _roomy(self.values, new + _AHEAD))
        assert self._rooms is not None
        for room, states in zip(self._rooms, (key_states, value_states), strict=True):
            room[..., old:new, :] = states
        self.keys, self.values = (room[..., :new, :] for room in self._rooms)
        return self.keys, self.values

    def keep(self, chosen: Sequence[int]) -> None:
        """The chosen rows alone, in this order. In place where a row is either where it was or comes from behind the others."""
        assert self.keys is not None
        assert self.values is not None
        moved = [(place, row) for place, row in enumerate(chosen) if place != row]
        if self._fit(self.keys.shape[-2]) and all(row >= len(chosen) for _, row in moved):
            assert self._rooms is not None
            for room in self._rooms if moved else ():
                to, of = torch.tensor(moved, device=room.device).T
                room[to] = room[of]
            self._rooms = (self._rooms[0][: len(chosen)], self._rooms[1][: len(chosen)])
            self.keys, self.values = (states[: len(chosen)] for states in (self.keys, self.values))
            return
        numbers = torch.tensor(chosen, device=self.keys.device)
        self.keys, self.values = self.keys[numbers], self.values[numbers]

    def _fit(self, length: int) -> bool:
        """Whether keys and values are still the beginnings of the rooms, and so many positions fit in."""
        if self._rooms is None:
            return False
        pairs = zip(self._rooms, (self.keys, self.values), strict=True)
        return all(
            part is not None
            and part.data_ptr() == room.data_ptr()
            and part.stride() == room.stride()
            and part.shape[:2] == room.shape[:2]
            and length <= room.shape[-2]
            for room, part in pairs
        )


def _roomy(states: torch.Tensor, length: int) -> torch.Tensor:
    """With room after them, up to the length."""
    room = states.new_empty((*states.shape[:-2], length, states.shape[-1]))
    room[..., : states.shape[-2], :] = states
    return room


class Past(DynamicCache):
    """Of a model that keeps all of its past in every layer (prefix.fits)."""

    layers: list[Any]
    """Growing."""
    in_slots = False
    """Whether its layers show more positions than a row has, and prefix.attention is to read them."""

    def __init__(self, config: Any, beginning: Sequence[tuple[torch.Tensor, torch.Tensor]] = ()):
        """`beginning`: by layer the keys and values, (1, heads, positions, width), that all rows share
        (trials/evaluation/engine/shared_prefix.py).
        """
        super().__init__(config=config)
        self.layers = [Growing() for _ in self.layers]
        self.beginning, self._config = beginning, config

    @property
    def shared(self) -> int:
        """Positions of the beginning."""
        return self.beginning[0][0].shape[2] if self.beginning else 0

    def lent(self) -> "Past":
        """An empty past with this one, of one row, as its beginning."""
        return Past(self._config, [(layer.keys, layer.values) for layer in self.layers if layer.is_initialized])

    def of(self, rows: Sequence[int]) -> "Past":
        """A copy of these rows alone."""
        made = self.anew()
        numbers = torch.tensor(rows, device=self.layers[0].keys.device)
        for one, other in zip(made.layers, self.layers, strict=True):
            one.update(other.keys[numbers], other.values[numbers])
        return made

    def anew(self) -> "Past":
        """An empty one with the same beginning."""
        return Past(self._config, self.beginning)
