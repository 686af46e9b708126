"""Counts usable rows before any trial: rows are rendered, screened for test documents and encoded as in a trial."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from trials import mix
from trials.data.decontamination import Screen
from trials.errors import InputError
from trials.hub.fingerprint import sha256
from trials.hub.hub import SELF, Hub, find_source
from trials.spec import Data, Replay, TrialSpec
from trials.template import Encoder


class Survey:
    """Draws rows for one trial after the other; trials that differ only in the number of rows share their draws."""

    def __init__(self, hub: Hub, fetch: bool = True):
        """Without `fetch`, sources that only the hub has are left out."""
        self._hub, self._fetch = hub, fetch
        self._checked: set[tuple[str, str]] = set()
        self._draws: dict[str, dict[str, tuple[mix.Draw, Iterator[mix.Example]]]] = {}

    def check(self, spec: TrialSpec, tokenizer: Any = None, screen: Screen | None = None) -> None:
        """Raises InputError for a source that cannot be read or rendered, or has too few usable rows for the trial.

        Without a tokenizer no row counts as too long; without a screen no row counts as a test document.
        """
        same = _sameness(spec)
        if same not in self._draws:
            encode = Encoder(spec.data, tokenizer) if tokenizer is not None else None
            names = self._names(spec.data)
            self._check_distinct(spec.data, names)
            draws = mix.draws(spec.data, self._hub, names)
            for name, draw in draws.items():
                if (definition := (name, find_source(spec.data, name).model_dump_json())) not in self._checked:
                    draw.check(encode)
                    self._checked.add(definition)
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
        """Raises InputError if two sources have a file of the same content: its rows would count twice."""
        seen: dict[str, tuple[str, Path, str]] = {}
        for name in sorted(names):
            source = find_source(data, name)
            # a folder is a data set with configurations and splits, which several sources may read
            files = {} if self._hub.has(source.dataset) else self._hub.files(name, source) or {}
            for path in files.values():
                other, its_path, its_split = seen.setdefault(sha256(path), (name, path, source.split))
                # two parts of one file, such as train[:90%] and train[90%:], are two sources
                if other != name and (its_split == source.split or "[" not in its_split or "[" not in source.split):
                    raise InputError(
                        f"data.mix: sources {other!r} ({its_path}) and {name!r} ({path}) are the same file by content; keep "
                        "one with the share of both, or give each a part of it, such as split: train[:50%] and train[50%:]"
                    )

    def drawn(self) -> dict[str, mix.Drawn]:
        """Counts of the largest draw of each source."""
        largest: dict[str, mix.Drawn] = {}
        for drawn in self._draws.values():
            for name, (draw, _) in drawn.items():
                if name not in largest or draw.counts.used > largest[name].used:
                    largest[name] = draw.counts
        return dict(sorted(largest.items()))


def _sameness(spec: TrialSpec) -> str:
    """Key of a draw: equal for trials whose sources have the same usable rows in the same order."""
    data, names = spec.data, sorted(name for name, share in spec.data.mix.items() if share > 0)
    replay = Replay(source=data.replay.source, control=data.replay.control) if data.replay.share > 0 else Replay()
    # samples, shares and the replayed share decide how many rows are drawn, not which
    same = data.model_copy(update={"samples": 1, "mix": dict.fromkeys(names, 1.0), "replay": replay})
    return "|".join(
        [same.model_dump_json(), spec.base.model_dump_json(), *(one.model_dump_json() for one in spec.eval.values())]
    )
