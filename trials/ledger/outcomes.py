"""Per-document outcomes, packed into the record, so that comparing thousands of trials reads no further files.

Rows are sorted by task, then doc_hash; duplicates of a document keep their order.
"""

import base64
import binascii
import hashlib
import math
import re
from collections.abc import Sequence
from typing import Literal

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict, Field, model_validator

Half = Literal["search", "report"]
Split = Literal["search", "report", "all"]
"""Which of a benchmark's documents: the half that the search sees, the half that is reported, or both."""
SEARCH: Half = "search"
REPORT: Half = "report"
ALL: Split = "all"
SHARES = ("score", "strict", "flexible", "marker", "stopped")
STAGES = (0.125, 0.25, 0.5)
"""Shares of a role's clusters after which racing judges a trial."""
_BASE64 = re.compile(r"[A-Za-z0-9+/]*={0,2}")
_BYTES = {"b:": lambda n: -(-n // 8), "h:": lambda n: 2 * n, "f:": lambda n: 4 * n, "u:": lambda n: 4 * n}
_OF_A_DOCUMENT = ("half", "cluster")
"""Equal for every model, as are bytes, weights and choices, so only the baseline keeps them."""


class Scale(BaseModel):
    """How a role's score is made of its documents, and which way it is better.

    With s and w the sums of the columns `score` and `weight` over n documents, the role's score is s / n (mean), s / w (ratio)
    or exp(s / w) (exp).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    form: Literal["mean", "ratio", "exp"] = "mean"
    higher_is_better: bool = True
    share: bool = True
    """Whether every document's score is within 0..1, so that the role's score is a share."""


SHARES_SCALE = Scale()
"""Of a mean of shares that is better when higher."""


def of_document(name: str) -> bool:
    """Whether a column says something on the document and nothing on the answer."""
    return name in ("weight", "choices") or name.partition(".")[0] == "bytes"


class Packed(BaseModel):
    """The outcomes of `n` documents."""

    documents: str
    """Digest of the ordered document ids. Equal digests mean the same documents."""
    n: int = Field(ge=0)
    columns: dict[str, str]
    """"CODE:BASE64" by name: b, bits; h and f, 16-bit and 32-bit floats; u, 32-bit unsigned integers; little-endian.
    The names are those of `Ledger.documents`; `half` is 1 in the report half."""

    @model_validator(mode="after")
    def _whole(self) -> "Packed":
        for name, text in self.columns.items():
            size = _BYTES.get(text[:2], lambda n: -1)(self.n)
            if len(text) != 2 + 4 * math.ceil(size / 3) or _BASE64.fullmatch(text, 2) is None:
                raise ValueError(f"column {name} does not hold {self.n} values")
        return self

    def column(self, name: str) -> np.ndarray | None:
        """The column, shape (n,), or None where there is none."""
        return _numbers([self.columns[name]], self.n)[0] if name in self.columns else None


def stack(rows: Sequence[Packed], name: str) -> np.ndarray:
    """A column of several records of the same n documents, shape (len(rows), n); NaN for a record without the column."""
    texts = [row.columns.get(name, "") for row in rows]
    n = rows[0].n
    if len({text[:2] for text in texts}) == 1 and texts[0]:  # one decode for thousands of records
        return _numbers(texts, n)
    absent = np.full(n, np.nan, np.float32)
    return np.stack([_numbers([text], n)[0].astype(np.float32) if text else absent for text in texts])


def _numbers(texts: Sequence[str], n: int) -> np.ndarray:
    """The values of columns that have the same code."""
    code = texts[0][0]
    raw = b"".join(binascii.a2b_base64(text[2:]) for text in texts)
    if code == "b":
        return np.unpackbits(np.frombuffer(raw, np.uint8).reshape(len(texts), -1), axis=1, count=n)
    return np.frombuffer(raw, {"h": "<f2", "f": "<f4", "u": "<u4"}[code]).reshape(len(texts), n)


def pack(documents: pd.DataFrame, baseline: bool) -> dict[str, Packed]:
    """Packs `documents` (as in `Ledger.documents`) by role."""
    found = {}
    for role, rows in documents.groupby("role", sort=False):
        ordered = rows.sort_values(["task", "doc_hash"], kind="stable")  # equal in all trials, for paired comparisons
        identity = "\n".join(f"{task}\t{doc}" for task, doc in zip(ordered["task"], ordered["doc_hash"], strict=True))
        digest = hashlib.sha256(identity.encode()).hexdigest()[:16]
        names = [str(name) for name in ordered]
        wanted = [name for name in names if name in SHARES or name.partition(".")[0] == "bits"]
        if "margin" in names and any(name.startswith("acc_norm,") and ordered[name].notna().any() for name in names):
            wanted.append("margin")  # the margin belongs to acc_norm
        if baseline:
            wanted += [name for name in names if name in _OF_A_DOCUMENT or of_document(name)]
        columns = {name: _packed(name, ordered[name]) for name in wanted if ordered[name].notna().any()}
        found[str(role)] = Packed(documents=digest, n=len(ordered), columns=columns)
    return found


def _packed(name: str, values: pd.Series) -> str:
    if name == "half":
        return _text("b", np.packbits((values == REPORT).to_numpy()))
    if name == "cluster":
        return _text("u", np.array([label(one) for one in values], "<u4"))
    numbers = values.to_numpy(dtype=float)
    if name in SHARES and np.isin(numbers, (0.0, 1.0)).all():
        return _text("b", np.packbits(numbers.astype(bool)))
    # 16 bits hold three digits, which is enough for a standard error
    small = (name.startswith("bits") or name in ("margin", "choices")) and not (numbers > np.finfo("<f2").max).any()
    return _text("h", numbers.astype("<f2")) if small else _text("f", numbers.astype("<f4"))


def first_clusters(count: int, share: float) -> np.ndarray:
    """Ascending positions of a stage's clusters in all clusters sorted by label; at least two."""
    shuffled = np.random.default_rng(count).permutation(count)
    return np.sort(shuffled[: max(2, round(share * count))])


def label(cluster: str) -> int:
    """A 32-bit number that identifies a cluster of documents in every record."""
    return int.from_bytes(hashlib.sha256(cluster.encode()).digest()[:4], "little")


def _text(code: str, values: np.ndarray) -> str:
    return f"{code}:{base64.b64encode(values.tobytes()).decode()}"
