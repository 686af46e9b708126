"""Mean length of training rows in tokens, from data and a tokenizer on this machine; no torch, no transformers."""

import functools
import json
import math
from itertools import islice
from pathlib import Path

from tokenizers import Tokenizer

from trials import mix
from trials.data.conversation import Conversation
from trials.errors import InputError
from trials.hub.hub import SELF, Hub, find_source
from trials.spec import Base, Data, Replay, TrialSpec
from trials.template import Encoder, Parts, Tokens

_ROWS = 64  # read of a source to learn its lengths
_UNCUT = 10**9
CHARACTERS = 4
"""Of a token of English text, about, where no tokenizer is at hand."""


class RowLengths:
    def __init__(self, hub: Hub):
        self._hub = hub
        self._lengths: dict[tuple[str, str], list[int]] = {}

    def mean(self, spec: TrialSpec) -> float | None:
        """Tokens per row of the spec's mix; None without local rows of every source.

        Without a local tokenizer a token is CHARACTERS long.
        """
        # rows that the base samples from itself are taken to be as long as the others
        shares = {name: share for name, share in spec.data.shares.items() if name != SELF}
        total = 0.0
        for name, share in shares.items():
            alone = {"samples": 1, "mix": {name: 1.0}, "replay": Replay(), "max_length": _UNCUT, "seed": 0, "date": None}
            data = spec.data.model_copy(update=alone)
            if (known := (spec.base.model, data.model_dump_json())) not in self._lengths:
                self._lengths[known] = self._read(name, spec.base, data)
            if not (rows := self._lengths[known]):
                return None
            total += share * sum(min(row, spec.data.max_length) for row in rows) / len(rows)
        return total / sum(shares.values()) if shares else None

    def _read(self, name: str, base: Base, data: Data) -> list[int]:
        """Tokens of the first rows of a source, uncut; empty without a local source."""
        tokenizer = counter(base, self._hub)
        if self._hub.files(name, find_source(data, name)) is None:
            return []
        try:
            rows = mix.draws(data, self._hub, [name])[name].rows(_Lengths(data, tokenizer), None)
            return [len(row.input_ids) for row in islice(rows, _ROWS)]
        except InputError:  # a broken row or template; `plan` reports it with the counts of rows
            return []


class _Lengths(Encoder):
    """Encodes rows about as long as in their template.

    A chat template would need transformers, and is about as long as the plain form, which has no place for tools: they and
    their calls are counted as JSON.
    """

    def __init__(self, data: Data, tokenizer: "Counter"):
        self._of_chat, self._count = data.template == "chat", tokenizer
        super().__init__(data.model_copy(update={"template": "plain"}) if self._of_chat else data, tokenizer)

    def uncut(self, parts: Parts) -> Tokens:
        if not (self._of_chat and isinstance(parts, Conversation)):
            return super().uncut(parts)
        tools = "".join(json.dumps(tool, ensure_ascii=False) + "\n" for tool in parts.tools or [])
        labels = "".join(f"{message['role']}:\n" for message in parts.messages)
        ids = self._count(tools + labels + parts.words())["input_ids"]
        return ids, ids


class _Characters:
    """Stands in for a tokenizer."""

    eos_token_id = 0

    def __call__(self, text: str, add_special_tokens: bool = True) -> dict[str, list[int]]:
        return {"input_ids": [0] * math.ceil(len(text) / CHARACTERS)}


class _Tokenizer:
    """The part of a tokenizer that trials.data calls. Importing transformers takes longer than a whole plan."""

    eos_token_id = 0  # any single token: only lengths count

    def __init__(self, file: Path):
        self._tokenizer = Tokenizer.from_file(str(file))

    def __call__(self, text: str, add_special_tokens: bool = True) -> dict[str, list[int]]:
        return {"input_ids": self._tokenizer.encode(text, add_special_tokens=add_special_tokens).ids}


Counter = _Tokenizer | _Characters

_read_tokenizer = functools.cache(_Tokenizer)


def local_tokenizer(base: Base, hub: Hub) -> _Tokenizer | None:
    """The base's tokenizer for counting tokens; None without a local file."""
    file = Path(hub.locate(base.model)) / "tokenizer.json"
    return _read_tokenizer(file) if file.is_file() else None


def counter(base: Base, hub: Hub) -> Counter:
    """The base's tokenizer for counting tokens, or one that counts characters."""
    return local_tokenizer(base, hub) or _Characters()
