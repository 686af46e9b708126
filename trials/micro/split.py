"""The rule that assigns micro's situations, problems and questions to the test split, and the draw of different rows."""

import hashlib
import json
import random
from collections.abc import Callable


def held_out(identity: str, share: float) -> bool:
    """True for about `share` (0..1) of all identities: by hash, so it needs no list and is the same in any process."""
    digest = hashlib.sha256(identity.encode()).digest()
    return int.from_bytes(digest[:4], "big") < share * 2**32


def distinct(draw: Callable[[random.Random], dict], n: int, seed: int) -> list[dict]:
    """n different rows, in the order in which they were drawn first."""
    rng = random.Random(seed)
    rows: dict[str, dict] = {}
    while len(rows) < n:
        row = draw(rng)
        rows.setdefault(json.dumps(row), row)
    return list(rows.values())
