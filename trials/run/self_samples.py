"""Text that a base samples from itself, to be replayed: made once a base, in the ledger.

The base goes on from its beginning-of-text token alone (its end token where it has none) at temperature 1, from all of its
vocabulary, for 128 tokens or until it ends the text. That is the context-free generation of arXiv 2505.13811; unlike there, the
texts are short and of one length, none is filtered or judged, and they are rows of the trial's mix.
What is replayed are the sampled tokens themselves: written out and read back, a text may come in others.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import torch

from trials.errors import InputError, writing
from trials.ledger import storage
from trials.ledger.record import Ledger
from trials.models.base import LoadedBase
from trials.spec import SCHEMA, Base

TOKENS = 128  # sampled for a text
_BLOCK = 64  # texts that are sampled together, with a seed of their own, and kept in one file


def samples(loaded: LoadedBase, base: Base, ledger: Ledger, count: int) -> list[tuple[list[int], str]]:
    """The base's first `count` texts, as token ids (the beginning token first) and in words.

    Blocks that the ledger has are read, the others are sampled and kept; the global random state is left alone. Whoever of
    several processes keeps a block first decides on it for all of them. Raises StorageFailed, and InputError for a block that
    cannot be read.
    """
    folder = place(loaded, base, ledger)
    found: list[tuple[list[int], str]] = []
    for number in range(-(-count // _BLOCK)):
        path = folder / f"block-{number:05}.json"
        with writing(path):
            block = _read(path)
        if block is None:
            text = json.dumps({"rows": _sampled(loaded, number)}, ensure_ascii=False) + "\n"
            with writing(path):
                storage.create(path, text)
                block = _read(path)
        found += block or []
    return found[:count]


def place(loaded: LoadedBase, base: Base, ledger: Ledger) -> Path:
    """The ledger's folder for this base's text, named after all that the text depends on."""
    depends = {
        "schema": SCHEMA,
        "base": base.model_dump(mode="json", exclude={"content"}),  # the checksum stands beside it
        "checksum": loaded.checksum,
        "tokens": TOKENS,
        "block": _BLOCK,
    }
    name = hashlib.sha256(json.dumps(depends, sort_keys=True).encode()).hexdigest()[:16]
    return ledger.folder(f"self-{name}")


def _read(path: Path) -> list[tuple[list[int], str]] | None:
    try:
        return [(row["ids"], row["text"]) for row in json.loads(storage.read_bytes(path))["rows"]]
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: not a whole block of text; move it away and it is sampled again") from error


def _sampled(loaded: LoadedBase, number: int) -> list[dict[str, Any]]:
    """Block `number`, always the same on the same hardware."""
    model, tokenizer = loaded.model, loaded.tokenizer
    start, end = tokenizer.bos_token_id, tokenizer.eos_token_id
    device = next(model.parameters()).device
    generator = torch.Generator(device=device).manual_seed(number)
    newest = torch.full((_BLOCK, 1), end if start is None else start, device=device)
    rows, past = [newest], None
    ended = torch.zeros(_BLOCK, 1, dtype=torch.bool, device=device)
    with torch.no_grad():
        for _ in range(TOKENS):
            output = model(input_ids=newest, past_key_values=past, use_cache=True)
            past = output.past_key_values
            newest = torch.multinomial(output.logits[:, -1].float().softmax(-1), 1, generator=generator)
            rows.append(newest)
            ended |= newest == end
            if bool(ended.all()):
                break
    sampled = []
    for row in torch.cat(rows, dim=1).tolist():
        if end in row[1:]:
            row = row[: row.index(end, 1) + 1]
        sampled.append({"ids": row, "text": tokenizer.decode(row, skip_special_tokens=True)})
    return sampled
