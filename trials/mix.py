"""The training rows of a trial: which rows, in which order, as which tokens.

Each source is a seeded permutation of its rows. The mix takes rows from the sources in turn, so that every prefix has the
requested shares as nearly as whole rows allow: the mix of 500 samples is a prefix of the mix of 2,000. Replayed rows are
inserted between those of the mix and move none of them.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from trials.data import replay_controls, source_formats
from trials.data.conversation import Conversation
from trials.data.decontamination import Screen
from trials.errors import InputError
from trials.hub.hub import SELF, Hub, find_source
from trials.spec import Data
from trials.template import IGNORED, NO_ALPACA, Encoder, Parts, Reader, Tokens

HELD_OUT = 32  # rows of a source, and at most a tenth of it
_SMALLEST = 20  # a source with fewer rows holds none out
_CHECKED = 100_000  # rows of a source that are checked before any trial; so many take some seconds, once for a content
_PLACES = 3  # rows whose places are kept for each reason
_JUDGED = 1_000  # rows from which a source's overlap with the test documents is estimated

Own = Callable[[int], Sequence[tuple[list[int], str]]]
"""Samples that many texts from the base: (token ids, text) each. More texts begin with the same ones as fewer."""


@dataclass(frozen=True)
class Example:
    """A tokenised row. `labels` has the length of `input_ids`: the ids that the loss counts, IGNORED elsewhere."""

    source: str
    input_ids: list[int]
    labels: list[int]


def order_of_sources(mix: Mapping[str, float], samples: int) -> list[str]:
    """The source of each row: always the one that is furthest behind its share (ties: by name)."""
    names = sorted(name for name, share in mix.items() if share > 0)  # sorted as in the key, which ignores the mix's order
    shares = np.array([mix[name] for name in names])
    taken = np.zeros(len(names))
    order = []
    for position in range(1, samples + 1):
        chosen = int(np.argmax(np.round(shares * position - taken, 9)))  # rounded: float errors must not break ties
        taken[chosen] += 1
        order.append(names[chosen])
    return order


def order_of_rows(data: Data) -> list[str]:
    """The source of each row of an epoch. Without the replayed rows, it is the order of a mix with no replay."""
    replay = data.replay
    if not replay.source or replay.share == 0:
        return order_of_sources(data.mix, data.rows)
    places = order_of_sources({"": 1.0 - replay.share, replay.source: replay.share}, data.rows)
    mixed = iter(order_of_sources(data.mix, places.count("")))
    return [place or next(mixed) for place in places]


def permutation(name: str, rows: int, seed: int) -> np.ndarray:
    """(rows,) row numbers, seeded by the source's name, too: no source moves the rows of another."""
    stream = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")
    return np.random.default_rng([seed, stream]).permutation(rows)


def held_out(rows: int) -> int:
    """The number of a source's rows that no trial trains on."""
    return min(HELD_OUT, rows // 10) if rows >= _SMALLEST else 0


class _Source:
    """A source's rows by number, rendered by its Reader, with the replay control applied."""

    def __init__(self, name: str, data: Data, hub: Hub):
        definition = find_source(data, name)
        self._rows = hub.rows(name, definition)
        self.format = source_formats.recognised(name, definition, self._rows)
        if self.format:
            definition = self.format.source
        self._read = Reader(name, definition, self._rows.filled)
        self.name, self._control = name, data.replay.control if name == data.replay.source else "true"
        self.version = (definition.model_dump_json(), self._rows.version, self._control)
        # seeded by nothing of the trial: all trials of a sweep hold out, and judge, the same rows
        self.fixed = permutation(f"{name}, held out", len(self._rows), 0)
        self._others = replay_controls.others(self.fixed) if self._control == "permuted" else {}
        self.converses = definition.messages is not None
        if self._control != "true" and (definition.text is not None or self.converses):
            holds = "conversations" if self.converses else "plain text"
            raise InputError(f"data.replay.control {self._control} needs solutions; source {name!r} is {holds}")
        if self.converses and data.template == "alpaca":
            raise InputError(f"source {name!r}: {NO_ALPACA}")

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, number: Any) -> Parts:
        parts = self._parts(int(number))
        if isinstance(parts, Conversation):
            return parts
        if self._control == "permuted":
            return (*parts[:-1], self._parts(self._others[int(number)])[-1])
        if self._control == "prose" and parts[-1]:
            return (*parts[:-1], replay_controls.prose(self.name, parts[-1]))
        return parts

    def _parts(self, number: int) -> Any:
        return self._read(self._rows[number], partial(self.where, number))

    def where(self, number: int) -> str:
        return self._rows.where(number)

    def encoded(self, number: int, parts: Parts, encode: Encoder) -> Tokens:
        """All tokens of a row. Raises InputError with the row's place."""
        try:
            return encode.uncut(parts)
        except InputError as error:
            raise InputError(f"source {self.name!r}: {self.where(number)}: {error}") from error

    @property
    def reserved(self) -> np.ndarray:
        """Numbers of the held-out rows."""
        return self.fixed[: held_out(len(self))]

    def held_out(self) -> list[tuple[int, Parts]]:
        """The held-out rows that can be used, with their numbers."""
        rows = [(int(number), self[number]) for number in self.reserved]
        return [(number, parts) for number, parts in rows if not unusable(parts)]


def heldout(data: Data, hub: Hub, tokenizer: Any) -> dict[str, list[Example]]:
    """Held-out rows by source of the mix: the same for every seed, number of samples and share; `build` never returns them.

    Up to 32 a source and at most a tenth of it; none of a source with fewer than 20 rows, and none of `self`. Rows whose
    response does not fit in data.max_length are left out.
    """
    encode, found = Encoder(data, tokenizer), {}
    for name in _mixed(data):
        source = _Source(name, data, hub)
        rows = [Example(name, *encode.cut(source.encoded(number, parts, encode))) for number, parts in source.held_out()]
        found[name] = [row for row in rows if _has_labels(row.labels)]
    return {name: rows for name, rows in found.items() if rows}


class Mixture(NamedTuple):
    """The rows of one epoch, and counts of the rows that were left out or cut on the way."""

    rows: list[Example]
    drawn: dict[str, "Drawn"]
    """By source, without `self`."""


@dataclass
class Drawn:
    """Counts of a source's rows up to the last one that was read."""

    rows: int
    """All rows of the source."""
    format: str
    """As recognised by its columns; empty for a source with templates of its own."""
    used: int = 0
    cut: int = 0
    """Used rows that were truncated to data.max_length."""
    cut_tokens: int = 0
    """Tokens with a label that this removed from them."""
    duplicates: int = 0
    """Used rows that are copies of an earlier one."""
    left_out: Counter[str] = field(default_factory=Counter)
    """Numbers of unused rows by reason."""
    places: dict[str, list[str]] = field(default_factory=dict)
    """File and row of the first ones of each reason, in the order of the draw."""

    unusable: dict[str, tuple[int, str]] = field(default_factory=dict)
    """Of conversations, by reason: number of all rows, drawn or not, that no trial can use, with file and row of the first."""
    unusual: dict[str, tuple[int, str]] = field(default_factory=dict)
    """Number of used conversations by what is unusual in them, with file and row of the first in the order of the draw."""

    def remark(self, oddity: str, where: str) -> None:
        count, first = self.unusual.get(oddity, (0, where))
        self.unusual[oddity] = count + 1, first

    def leave(self, reason: str, where: str) -> None:
        self.left_out[reason] += 1
        if len(places := self.places.setdefault(reason, [])) < _PLACES:
            places.append(where)

    def numbers(self) -> dict[str, int]:
        """Numbers of rows and tokens by use, and of unused rows by reason."""
        named = {name: getattr(self, name) for name in ("rows", "used", "cut", "cut_tokens", "duplicates")}
        return named | dict(self.left_out)

    def __str__(self) -> str:
        """Used rows and the reasons for the others, as text for an error."""
        reasons = ", ".join(f"{count} {reason}" for reason, count in self.left_out.most_common())
        return f"{self.used} usable rows of {self.rows}{f' ({reasons})' if reasons else ''}"


def build(data: Data, hub: Hub, tokenizer: Any, screen: Screen | None = None, own: Own | None = None) -> list[Example]:
    """The rows of `mixture`."""
    return mixture(data, hub, tokenizer, screen, own).rows


def mixture(data: Data, hub: Hub, tokenizer: Any, screen: Screen | None = None, own: Own | None = None) -> Mixture:
    """The rows of one epoch, replay included, without rows that `screen` finds to contain a test document.

    `own` samples the text of source `self`. Raises InputError for a source with too few rows, or too many with test documents.
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
            raise too_few(data, name, needed[name], str(drawn[name].counts))
        examples.append(example)
    return Mixture(examples, {name: drawn[name].counts for name in sorted(needed.keys() - {SELF})})


class Draw:
    """The usable rows of a source in a trial's order, with counts of the rows read so far by their use."""

    def __init__(self, source: _Source, data: Data, held: set[Parts]):
        """`held`: the contents of all held-out rows."""
        self._source, self._data, self._held = source, data, held
        self._seen: set[int] = set()
        self.counts = Drawn(len(source), str(source.format or ""))

    @property
    def converses(self) -> bool:
        return self._source.converses

    @property
    def version(self) -> tuple[str, ...]:
        """The definition of the source and the content of its rows; empty where no file has the rows' content."""
        definition, files, control = self._source.version
        return (definition, *files, control) if files else ()

    def check_rows(self) -> dict[str, tuple[int, str]]:
        """Reads and renders the rows, drawn or not; raises InputError for a broken one. Returns Drawn.unusable."""
        found: dict[str, tuple[int, str]] = {}
        for number in range(min(len(self._source), _CHECKED)):
            if reason := unusable(self._source[number]):
                count, first = found.get(reason, (0, self._source.where(number)))
                found[reason] = count + 1, first
        return found

    def check_tokens(self, encode: Encoder) -> None:
        """Encodes the held-out rows, which no draw reads; raises InputError for one that cannot be encoded."""
        for number, parts in self._source.held_out():
            self._source.encoded(number, parts, encode)

    def rows(self, encode: Encoder | None, screen: Screen | None) -> Iterator[Example]:
        """The usable rows. Without an encoder no row has tokens, and none is too long."""
        source, counts = self._source, self.counts
        if screen:
            screen.judge(source.name, source.version, (words(source[number]) for number in source.fixed[:_JUDGED]))
        reserved = set(source.reserved.tolist()) if source.name in _mixed(self._data) else set()
        for number in permutation(source.name, len(source), self._data.seed).tolist():
            parts = source[number]
            if number in reserved:
                counts.left_out["held out"] += 1
            elif reason := unusable(parts):
                counts.leave(reason, source.where(number))
            elif parts in self._held:
                counts.leave("copy of a held-out row", source.where(number))
            elif screen and screen.holds_back(source.name, words(parts)):
                counts.leave("overlap with a test document", source.where(number))
            elif (row := self._example(number, parts, encode)) is None:
                counts.leave(f"no room for a response in max_length {self._data.max_length}", source.where(number))
            else:
                counts.used += 1
                counts.duplicates += hash(parts) in self._seen
                self._seen.add(hash(parts))
                for oddity in parts.oddities() if isinstance(parts, Conversation) else ():
                    counts.remark(oddity, source.where(number))
                yield row

    def _example(self, number: int, parts: Parts, encode: Encoder | None) -> Example | None:
        """None if the prompt fills data.max_length or the response has no tokens, so that no label is left."""
        if encode is None:
            return Example(self._source.name, [], [])
        whole = self._source.encoded(number, parts, encode)
        row = Example(self._source.name, *encode.cut(whole))
        if not _has_labels(row.labels):
            return None
        self.counts.cut += len(whole[0]) > len(row.input_ids)
        self.counts.cut_tokens += sum(label != IGNORED for label in whole[1][len(row.labels) :])
        return row


def draws(data: Data, hub: Hub, names: Collection[str]) -> dict[str, Draw]:
    sources = {name: _Source(name, data, hub) for name in sorted(names)}
    # held out by content, because a row may occur twice in a source, or in two sources
    held = {parts for name in _mixed(data) if name in sources for _, parts in sources[name].held_out()}
    return {name: Draw(source, data, held) for name, source in sources.items()}


def too_few(data: Data, name: str, needed: int, has: str) -> InputError:
    return InputError(
        f"data.samples: {data.samples} with a share of {data.shares[name]:g} needs {needed} rows of {name!r}; it has {has}"
    )


def state(data: Data, hub: Hub) -> tuple[str, ...]:
    """Identifies the current content of the files that the rows come from."""
    names = sorted({*_mixed(data), *([data.replay.source] if data.replay.source else [])} - {SELF})
    return tuple(hub.state(name, find_source(data, name)) for name in names)


def _mixed(data: Data) -> list[str]:
    """The sources of the mix without `self`, which is sampled and not read."""
    return sorted(name for name, share in data.mix.items() if share > 0 and name != SELF)


def unusable(parts: Parts) -> str | None:
    """Why nothing can be learnt from a row; None if something can."""
    if isinstance(parts, Conversation):
        return parts.unusable()
    return None if parts[-1] else "no response" if len(parts) > 1 else "no text"


def words(parts: Parts) -> str:
    """The texts of a row, in which test documents are looked for."""
    return parts.words() if isinstance(parts, Conversation) else "\n".join(parts)


def _has_labels(labels: Sequence[int]) -> bool:
    return any(label != IGNORED for label in labels[1:])  # no token predicts the first


def _own(own: Own | None, needed: int, encode: Encoder, screen: Screen | None) -> Iterator[Example]:
    """Texts that the base samples, with a label on every token; texts that contain a test document are replaced."""
    if own is None:
        raise InputError(f"source {SELF!r} is text that the base samples, and no base is loaded here")
    most = 2 * needed + 64  # a base that keeps reciting test documents must not sample without end
    texts, position = own(needed), 0
    while position < len(texts):
        ids, text = texts[position]
        position += 1
        if position == len(texts) < most:
            texts = own(min(len(texts) + 64, most))
        if text.strip() and not (screen and screen.holds_back(SELF, text)):
            yield Example(SELF, *encode.cut((ids, ids)))
