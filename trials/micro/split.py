"""The one rule that decides which of micro's situations, problems and questions are kept for the test split."""

import hashlib


def held_out(identity: str, share: float) -> bool:
    """True for about `share` (0..1) of all identities: by hash, so that it needs no list and holds in any process."""
    digest = hashlib.sha256(identity.encode()).digest()
    return int.from_bytes(digest[:4], "big") < share * 2**32
