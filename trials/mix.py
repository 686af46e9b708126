"""The training rows of a trial: which rows, in which order, as which tokens.

Each source is a seeded permutation of its rows. The mix takes rows from the sources in turn so that every prefix has the asked
shares as nearly as whole rows can, and the mix of 500 samples is a prefix of the mix of 2,000. Replayed rows stand between
those of the mix and move none of them. Some rows of each source of the mix are held out: no trial ever trains on them, so all
measure what was learnt on the same ones.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from trials.data import replay_controls
from trials.data.decontamination import Screen
from trials.errors import InputError
from trials.hub.hub import SELF, Hub, find_source
from trials.spec import Data
from trials.template import IGNORED, Encoder, Reader

_HELD_OUT = 32  # rows of a source, and at most a tenth of it
_SMALLEST = 20  # a source with fewer rows holds none out
_JUDGED = 1_000  # rows that tell a source's overlap with the test documents

Own = Callable[[int], Sequence[tuple[list[int], str]]]
"""The first so many texts that the base samples from itself, each as its token ids and in words; a larger number begins with
what a smaller one gives."""


@dataclass(frozen=True)
class Example:
    """One tokenised row: `labels` are the ids that the loss counts, IGNORED elsewhere; both have the same length."""

    source: str
    input_ids: list[int]
    labels: list[int]


def order_of_sources(mix: Mapping[str, float], samples: int) -> list[str]:
    """The source of each row: always the one that is furthest behind its share (ties: by name)."""
    names = sorted(name for name, share in mix.items() if share > 0)  # as the key does, which knows no order
    shares = np.array([mix[name] for name in names])
    taken = np.zeros(len(names))
    order = []
    for position in range(1, samples + 1):
        chosen = int(np.argmax(np.round(shares * position - taken, 9)))
        taken[chosen] += 1
        order.append(names[chosen])
    return order


def order_of_rows(data: Data) -> list[str]:
    """The source of each row of an epoch. Without its replayed rows it is the order of that many rows of the mix alone."""
    replay = data.replay
    if not replay.source or replay.share == 0:
        return order_of_sources(data.mix, data.rows)
    places = order_of_sources({"": 1.0 - replay.share, replay.source: replay.share}, data.rows)
    mixed = iter(order_of_sources(data.mix, places.count("")))
    return [place or next(mixed) for place in places]


def permutation(name: str, rows: int, seed: int) -> np.ndarray:
    """(rows,) row numbers; depends on the seed and the source's name alone, so no source moves another's rows."""
    stream = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")
    return np.random.default_rng([seed, stream]).permutation(rows)


def held_out(rows: int) -> int:
    """How many of a source's rows are never trained on."""
    return min(_HELD_OUT, rows // 10) if rows >= _SMALLEST else 0


class _Source:
    """A source's rows by number, as its Reader reads them."""

    def __init__(self, name: str, data: Data, hub: Hub):
        definition = find_source(data, name)
        self._rows, self._read = hub.rows(name, definition), Reader(name, definition)
        self._name, self._control = name, data.replay.control if name == data.replay.source else "true"
        self.version = (definition.model_dump_json(), self._rows.version, self._control)
        # an order that no setting of the trial moves: what is held out, and what is judged, is the same for all of a sweep
        self.fixed = permutation(f"{name}, held out", len(self._rows), 0)
        self._others = replay_controls.others(self.fixed) if self._control == "permuted" else {}
        if self._control != "true" and definition.text is not None:
            raise InputError(f"data.replay.control {self._control} is of solutions; source {name!r} is plain text")

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, number: Any) -> tuple[str, ...]:
        parts = self._parts(int(number))
        if self._control == "permuted":
            return (*parts[:-1], self._parts(self._others[int(number)])[-1])
        if self._control == "prose" and parts[-1]:
            return (*parts[:-1], replay_controls.prose(self._name, parts[-1]))
        return parts

    def _parts(self, number: int) -> tuple[str, ...]:
        return self._read(self._rows[number], self._rows.where(number))

    @property
    def reserved(self) -> np.ndarray:
        """The numbers of the rows that are held out."""
        return self.fixed[: held_out(len(self))]

    def held_out(self) -> list[tuple[str, ...]]:
        return [self[number] for number in self.reserved]


def heldout(data: Data, hub: Hub, tokenizer: Any) -> dict[str, list[Example]]:
    """Rows of each source of the mix that `build` never gives: the same for every seed, number of samples and share.

    Up to 32 a source and at most a tenth of it; none of a source with fewer than 20 rows, and none of `self`. A row that
    data.max_length leaves nothing to learn of is left out.
    """
    encode, found = Encoder(data, tokenizer), {}
    for name in _mixed(data):
        rows = [Example(name, *encode(parts)) for parts in _Source(name, data, hub).held_out() if parts[-1]]
        found[name] = [row for row in rows if _teaches(row)]
    return {name: rows for name, rows in found.items() if rows}


class Mixture(NamedTuple):
    """The rows of one epoch, and the rows before the last of them that were left out or cut."""

    rows: list[Example]
    left_out: dict[str, dict[str, int]]
    """By source and reason."""
    cut: dict[str, int]
    """By source: rows longer than data.max_length, of which the beginning is used."""


def build(data: Data, hub: Hub, tokenizer: Any, screen: Screen | None = None, own: Own | None = None) -> list[Example]:
    """The rows of `mixture`."""
    return mixture(data, hub, tokenizer, screen, own).rows


def mixture(data: Data, hub: Hub, tokenizer: Any, screen: Screen | None = None, own: Own | None = None) -> Mixture:
    """The rows of one epoch, replay included, without those that `screen` finds test documents in.

    `own` gives the text of source `self`. Raises InputError when a source has too few rows, or too many with test documents.
    """
    order, encode = order_of_rows(data), Encoder(data, tokenizer)
    needed = Counter(order)
    drawn = draws(data, hub, data.shares.keys() - {SELF})
    streams = {
        name: _own(own, needed[name], encode, screen) if name == SELF else drawn[name].rows(encode, screen) for name in needed
    }
    examples: list[Example] = []
    for name in order:
        example = next(streams[name], None)
        if example is None:
            raise too_few(data, name, needed[name], drawn[name].tally())
        examples.append(example)
    counted = [drawn[name] for name in sorted(needed.keys() - {SELF})]
    return Mixture(
        examples,
        {draw.name: dict(draw.left_out) for draw in counted if draw.left_out},
        {draw.name: draw.cut for draw in counted if draw.cut},
    )


class Draw:
    """The usable rows of a source in the order of a trial, and what became of the rows that were looked at for them."""

    def __init__(self, name: str, source: _Source, data: Data, never: set[tuple[str, ...]]):
        """`never` are the texts of all rows that are held out."""
        self.name, self._source, self._data, self._never = name, source, data, never
        self.used = self.cut = 0
        self.left_out: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._source)

    def tally(self) -> str:
        """What became of the rows, once all were looked at."""
        reasons = ", ".join(f"{count} {reason}" for reason, count in self.left_out.most_common())
        return f"{self.used} usable rows of {len(self)}{f' ({reasons})' if reasons else ''}"

    def rows(self, encode: Encoder | None, screen: Screen | None) -> Iterator[Example]:
        """Without an encoder no row has tokens, and none is too long."""
        name, source, seed = self.name, self._source, self._data.seed
        if screen:
            screen.judge(name, source.version, ("\n".join(source[number]) for number in source.fixed[:_JUDGED]))
        reserved = set(source.reserved.tolist()) if name in _mixed(self._data) else set()
        for number in permutation(name, len(source), seed):
            parts = source[number]
            if number in reserved:
                self.left_out["held out"] += 1
            elif not parts[-1]:
                self.left_out["no response" if len(parts) > 1 else "no text"] += 1
            elif parts in self._never:
                self.left_out["copy of a held-out row"] += 1
            elif screen and screen.holds_back(name, "\n".join(parts)):
                self.left_out["overlap with a test document"] += 1
            elif (row := self._example(parts, encode)) is None:
                self.left_out[f"no room for a response in max_length {self._data.max_length}"] += 1
            else:
                self.used += 1
                yield row

    def _example(self, parts: tuple[str, ...], encode: Encoder | None) -> Example | None:
        """None where the prompt fills data.max_length, or the response has no tokens: nothing is to be learnt."""
        if encode is None:
            return Example(self.name, [], [])
        prompt, ids = encode.uncut(parts)
        row = Example(self.name, *encode.tokens(prompt, ids))
        if not _teaches(row):
            return None
        self.cut += len(ids) > len(row.input_ids)
        return row


def draws(data: Data, hub: Hub, names: Collection[str]) -> dict[str, Draw]:
    """A draw from each of these sources of the data."""
    sources = {name: _Source(name, data, hub) for name in sorted(names)}
    # by their text, for a row may stand twice in a source, or in two
    never = {parts for name in _mixed(data) if name in sources for parts in sources[name].held_out()}
    return {name: Draw(name, source, data, never) for name, source in sources.items()}


def too_few(data: Data, name: str, needed: int, has: str) -> InputError:
    return InputError(
        f"data.samples: {data.samples} with a share of {data.shares[name]:g} needs {needed} rows of {name!r}; it has {has}"
    )


def state(data: Data, hub: Hub) -> tuple[str, ...]:
    """The files that the rows come from, as they are now."""
    names = sorted({*_mixed(data), *([data.replay.source] if data.replay.source else [])} - {SELF})
    return tuple(hub.state(name, find_source(data, name)) for name in names)


def _mixed(data: Data) -> list[str]:
    """The sources of the mix that are read, not sampled."""
    return sorted(name for name, share in data.mix.items() if share > 0 and name != SELF)


def _teaches(row: Example) -> bool:
    return any(label != IGNORED for label in row.labels[1:])  # no token predicts the first


def _own(own: Own | None, needed: int, encode: Encoder, screen: Screen | None) -> Iterator[Example]:
    """What the base samples from itself, all of it learnt: another text where one has a test document in it.

    However many have: they tell what the base knows, and nothing is given away by leaving them out.
    """
    if own is None:
        raise InputError(f"source {SELF!r} is text that the base samples, and no base is loaded here")
    most = 2 * needed + 64
    texts, position = own(needed), 0
    while position < len(texts):
        ids, text = texts[position]
        position += 1
        if position == len(texts) < most:
            texts = own(min(len(texts) + 64, most))
        if text.strip() and not (screen and screen.holds_back(SELF, text)):
            yield Example(SELF, *encode.tokens(0, ids))
