"""The two halves of a benchmark: the search sees one, the report quotes the other.

A document's half depends on the document only, not on a sample, a seed or a model.
"""

import hashlib
import re
from collections.abc import Mapping
from typing import Any

from trials.ledger.outcomes import REPORT, SEARCH, Half

# The beginning of a WikiHow context in HellaSwag. Copies without source_id may lack the markers in brackets.
_ARTICLE = re.compile(r"(?:\[header\] )?How to [^.\[]*")


def cluster(doc: Mapping[str, Any], doc_hash: str) -> str:
    """A label that is equal for documents that reveal each other's answers.

    HellaSwag's documents of a video or article share a source_id, and a context often contains the gold ending of the previous
    one. Without that field, the label is a WikiHow article's title or an ActivityNet activity (one a video). A document of any
    other benchmark is its own cluster, by its hash.
    """
    if doc.get("source_id") and "ctx" in doc:  # in other data sets the field may mean something else
        return str(doc["source_id"])
    if {"activity_label", "ctx"} <= doc.keys():
        article = _ARTICLE.match(str(doc["ctx"]))
        return article.group().strip() if article else str(doc["activity_label"])
    return doc_hash


def half(doc: Mapping[str, Any], doc_hash: str) -> Half:
    """The half of the document's cluster, by its hash: about one in two is in each."""
    return REPORT if hashlib.sha256(cluster(doc, doc_hash).encode()).digest()[0] % 2 else SEARCH
