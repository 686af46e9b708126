"""Which half of a benchmark a document is in: the search sees one, what is reported quotes the other.

The half is a function of the document alone: no sample, seed or model moves it.
"""

import hashlib
import re
from collections.abc import Mapping
from typing import Any

from trials.ledger.outcomes import REPORT, SEARCH, Half

# How a WikiHow context begins in HellaSwag; in copies without source_id the markers in brackets may be gone.
_ARTICLE = re.compile(r"(?:\[header\] )?How to [^.\[]*")


def cluster(doc: Mapping[str, Any], doc_hash: str) -> str:
    """What keeps documents together that tell of each other's answers.

    HellaSwag's documents of one video or article share a source_id, and a context often holds the gold ending of the one before
    it. Where the field is missing: a WikiHow document goes by its article's title, one of ActivityNet by its activity, of which
    a video has but one. Any other benchmark's document stands alone, by its hash.
    """
    if doc.get("source_id") and "ctx" in doc:  # other data sets may call something else so
        return str(doc["source_id"])
    if {"activity_label", "ctx"} <= doc.keys():
        article = _ARTICLE.match(str(doc["ctx"]))
        return article.group().strip() if article else str(doc["activity_label"])
    return doc_hash


def half(doc: Mapping[str, Any], doc_hash: str) -> Half:
    """As good as a coin's throw for each cluster."""
    return REPORT if hashlib.sha256(cluster(doc, doc_hash).encode()).digest()[0] % 2 else SEARCH
