"""Text sampled from a base for replay, generated once a base and kept in the ledger.

The base continues its beginning-of-text token (its end token where it has none) at temperature 1 over the full vocabulary, for
128 tokens or until the end token. This is the context-free generation of arXiv 2505.13811, with short texts of one length,
without filtering, as rows of the trial's mix.
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

TOKENS = 128  # of a text
_BLOCK = 64  # texts that share a batch, a seed and a file


def samples(loaded: LoadedBase, base: Base, ledger: Ledger, count: int) -> list[tuple[list[int], str]]:
    """The base's first `count` texts, as token ids (the beginning token first) and as text.

    Reads the blocks in the ledger; samples and saves the others. Leaves the global random state alone. Raises StorageFailed,
    and InputError for an unreadable block.
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
                storage.create(path, text)  # the first of several processes decides
                block = _read(path)
        found += block or []
    return found[:count]


def place(loaded: LoadedBase, base: Base, ledger: Ledger) -> Path:
    """The ledger's folder for this base's text, named by a hash of everything that the text depends on."""
    depends = {
        "schema": SCHEMA,
        "base": base.model_dump(mode="json", exclude={"content"}),  # `checksum` covers it
        "checksum": loaded.checksum,
        "tokens": TOKENS,
        "block": _BLOCK,
    }
    name = hashlib.sha256(json.dumps(depends, sort_keys=True).encode()).hexdigest()[:16]
    return ledger.folder(f"self-{name}")


def _read(path: Path) -> list[tuple[list[int], str]] | None:
    try:
        # the sampled ids, because tokenizing the text may give others
        return [(row["ids"], row["text"]) for row in json.loads(storage.read_bytes(path))["rows"]]
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: not a whole block of text; move it away and it is sampled again") from error


def _sampled(loaded: LoadedBase, number: int) -> list[dict[str, Any]]:
    """The texts of a block, deterministic on the same hardware."""
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
