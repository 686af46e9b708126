"""Mean length of training rows in tokens, from data and a tokenizer on this machine; no torch, no transformers."""

import functools
from pathlib import Path

from tokenizers import Tokenizer

from trials import mix
from trials.errors import InputError
from trials.hub.hub import SELF, Hub, find_source
from trials.spec import Base, Replay, TrialSpec

_ROWS = 64  # read of a source to learn its lengths
_UNCUT = 10**9


class RowLengths:
    def __init__(self, hub: Hub):
        self._hub = hub
        self._lengths: dict[tuple[str, str], list[int]] = {}

    def mean(self, spec: TrialSpec) -> float | None:
        """Tokens per row of the spec's mix; None without local rows of every source and a local tokenizer."""
        # rows that the base samples from itself are taken to be as long as the others
        shares = {name: share for name, share in spec.data.shares.items() if name != SELF}
        total = 0.0
        for name, share in shares.items():
            if (known := (spec.base.model, name)) not in self._lengths:
                self._lengths[known] = self._read(name, spec)
            if not (rows := self._lengths[known]):
                return None
            total += share * sum(min(row, spec.data.max_length) for row in rows) / len(rows)
        return total / sum(shares.values()) if shares else None

    def _read(self, name: str, spec: TrialSpec) -> list[int]:
        """Tokens of the first rows of a source, uncut; empty without a local source and tokenizer."""
        tokenizer = local_tokenizer(spec.base, self._hub)
        if tokenizer is None or self._hub.files(name, find_source(spec.data, name)) is None:
            return []
        # a chat template would need transformers, and is about as long as the plain form of a conversation
        template = "plain" if spec.data.template == "chat" else spec.data.template
        alone = {"samples": _ROWS, "mix": {name: 1.0}, "replay": Replay(), "max_length": _UNCUT, "template": template}
        try:
            return [len(row.input_ids) for row in mix.build(spec.data.model_copy(update=alone), self._hub, tokenizer)]
        except InputError:  # too few rows; `run` reports it before it starts
            return []


class _Tokenizer:
    """The part of a tokenizer that trials.data calls. Importing transformers takes longer than a whole plan."""

    eos_token_id = 0  # any single token: only lengths count

    def __init__(self, file: Path):
        self._tokenizer = Tokenizer.from_file(str(file))

    def __call__(self, text: str, add_special_tokens: bool = True) -> dict[str, list[int]]:
        return {"input_ids": self._tokenizer.encode(text, add_special_tokens=add_special_tokens).ids}


_read_tokenizer = functools.cache(_Tokenizer)


def local_tokenizer(base: Base, hub: Hub) -> _Tokenizer | None:
    """The base's tokenizer for counting tokens; None without a local file."""
    file = Path(hub.locate(base.model)) / "tokenizer.json"
    return _read_tokenizer(file) if file.is_file() else None
