"""Counts usable rows before any trial: rows are rendered, screened for test documents and encoded as in a trial."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from functools import cache
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from trials import mix, template
from trials.data import row_files
from trials.data.decontamination import Screen
from trials.errors import InputError
from trials.hub import fingerprint
from trials.hub.hub import SELF, Hub, find_source
from trials.spec import Data, Replay, Source, TrialSpec
from trials.template import Encoder

_File = tuple[str, Path]
"""Checksum and path."""


class Survey:
    """Draws rows for one trial after the other; trials that differ only in the number of rows share their draws."""

    def __init__(self, hub: Hub, fetch: bool = True):
        """Without `fetch`, sources that only the hub has are left out."""
        self._hub, self._fetch = hub, fetch
        self._encoded: set[tuple[str, ...]] = set()
        """Sources whose held-out rows have been encoded, with everything on which their tokens depend."""
        self._draws: dict[str, dict[str, tuple[mix.Draw, Iterator[mix.Example]]]] = {}

    def check(self, spec: TrialSpec, tokenizer: Any = None, screen: Screen | None = None) -> None:
        """Raises InputError for a source that cannot be read or rendered, or has too few usable rows for the trial.

        Without a tokenizer no row counts as too long; without a screen no row counts as a test document.
        """
        same = _sameness(spec)
        if same not in self._draws:
            encode = Encoder(spec.data, tokenizer) if tokenizer is not None else None
            names = self._names(spec.data)
            draws = mix.draws(spec.data, self._hub, names)
            self._check_distinct(spec.data, names)
            for name, draw in draws.items():
                _check_rows(draw)
                encoding = (name, find_source(spec.data, name).model_dump_json(), *_encoding(spec))
                if encode is not None and encoding not in self._encoded:
                    draw.check_tokens(encode)
                    self._encoded.add(encoding)
            self._draws[same] = {name: (draw, draw.rows(encode, screen)) for name, draw in draws.items()}
        drawn = self._draws[same]
        for name, (draw, _) in drawn.items():
            # a first check by size alone: reading a large source row by row could take hours
            if (least := int(spec.data.rows * spec.data.shares[name])) > draw.counts.rows:
                raise mix.too_few(spec.data, name, least, str(draw.counts.rows))
        for name, needed in Counter(mix.order_of_rows(spec.data)).items():
            if name in drawn:
                draw, rows = drawn[name]
                while draw.counts.used < needed:
                    if next(rows, None) is None:
                        raise mix.too_few(spec.data, name, needed, str(draw.counts))

    def _names(self, data: Data) -> list[str]:
        names = data.shares.keys() - {SELF}
        return [name for name in names if self._fetch or self._hub.files(name, find_source(data, name)) is not None]

    def _check_distinct(self, data: Data, names: list[str]) -> None:
        """Raises InputError if two sources take the same row of a file, by its content: it would count twice.

        Other templates make no other row of it: what one source holds out, the other would train on.
        """
        sources = {name: find_source(data, name) for name in sorted(names)}
        # a folder is a data set with configurations and splits, which several sources may read
        local = {name: {} if self._hub.has(one.dataset) else self._hub.files(name, one) for name, one in sources.items()}
        files = {name: [(fingerprint.sha256(path), path) for path in (found or {}).values()] for name, found in local.items()}
        for one, other in combinations(sources, 2):
            paths, others = dict(files[one]), dict(files[other])
            if not (shared := paths.keys() & others.keys()):
                continue
            taken, also = (self._taken(name, sources[name], files[name]) for name in (one, other))
            for file in sorted(shared):
                if len(twice := np.intersect1d(taken[file], also[file])):
                    raise InputError(
                        f"data.mix: sources {one!r} ({paths[file]}) and {other!r} ({others[file]}) are the same file by "
                        f"content, and both take row {twice[0] + 1} of it; keep one with the share of both, or give each "
                        "another part of it, such as split: train[:50%] and train[50%:]"
                    )

    def _taken(self, name: str, source: Source, files: list[_File]) -> dict[str, np.ndarray]:
        """By checksum of a file: the numbers of its rows that the source takes."""
        whole = [source.model_copy(update={"dataset": str(path), "split": "train"}) for _, path in files]
        ends = np.cumsum([len(self._hub.rows(name, one)) for one in whole])
        numbers = row_files.numbers_of(source.split, int(ends[-1]))
        taken: dict[str, np.ndarray] = {}
        for (file, _), begin, end in zip(files, [0, *ends], ends, strict=False):
            own = numbers[(numbers >= begin) & (numbers < end)] - begin
            taken[file] = np.union1d(taken.get(file, own), own)
        return taken

    def drawn(self) -> dict[str, mix.Drawn]:
        """Counts of the largest draw of each source."""
        largest: dict[str, mix.Drawn] = {}
        for drawn in self._draws.values():
            for name, (draw, _) in drawn.items():
                if name not in largest or draw.counts.used > largest[name].used:
                    largest[name] = draw.counts
        return dict(sorted(largest.items()))


def _check_rows(draw: mix.Draw) -> None:
    """Reads all rows of a source of conversations, unless this code has done so with this content before."""
    # a trial of another seed would come upon a broken row in the middle of a sweep
    if not draw.converses:
        return
    identity = hashlib.sha256("|".join([_code(), *draw.version]).encode()).hexdigest()[:32]
    note = fingerprint.cache("checked_rows") / identity
    known = _noted(note) if draw.version else None
    draw.counts.unusable = draw.check_rows() if known is None else known
    if draw.version and known is None:
        fingerprint.keep(note, json.dumps(draw.counts.unusable))


def _noted(note: Path) -> dict[str, tuple[int, str]] | None:
    try:
        found = json.loads(note.read_text(encoding="utf-8"))
        return {str(reason): (int(count), str(first)) for reason, (count, first) in found.items()}
    except (OSError, ValueError, TypeError, AttributeError):  # missing or damaged
        return None


@cache
def _code() -> str:
    """Checksum of the code that reads rows: what it takes today, it may refuse in another version."""
    files = [*Path(__file__).parent.glob("*.py"), Path(mix.__file__), Path(template.__file__)]
    return fingerprint.together((path.name, path) for path in files)


def _encoding(spec: TrialSpec) -> tuple[str, ...]:
    """Everything on which the tokens of a row depend, and whether they can be made."""
    return spec.base.model_dump_json(), spec.data.template, str(spec.data.date), spec.data.loss_on


def _sameness(spec: TrialSpec) -> str:
    """Key of a draw: equal for trials whose sources have the same usable rows in the same order."""
    data, names = spec.data, sorted(name for name, share in spec.data.mix.items() if share > 0)
    replay = Replay(source=data.replay.source, control=data.replay.control) if data.replay.share > 0 else Replay()
    # samples, shares and the replayed share decide how many rows are drawn, not which
    same = data.model_copy(update={"samples": 1, "mix": dict.fromkeys(names, 1.0), "replay": replay})
    return "|".join(
        [same.model_dump_json(), spec.base.model_dump_json(), *(one.model_dump_json() for one in spec.eval.values())]
    )
