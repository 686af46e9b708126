"""Outcomes packed into a record and taken out again."""

import numpy as np
import pandas as pd
import pytest

from trials.ledger.outcomes import Packed, pack, stack


def packed(**columns) -> Packed:
    documents = pd.DataFrame({"role": "math", "task": "t", "doc_hash": [f"h{n}" for n in range(9)], **columns})
    return pack(documents, baseline=False)["math"]


RIGHT = np.array([1, 0, 0, 1, 1, 0, 1, 0, 1.0])


def test_records_are_stacked_as_each_is_alone():
    rows = [packed(score=RIGHT), packed(score=1 - RIGHT)]
    assert stack(rows, "score").tolist() == [RIGHT.tolist(), (1 - RIGHT).tolist()]
    assert all((one == row.column("score")).all() for one, row in zip(stack(rows, "score"), rows, strict=True))


def test_stack_converts_other_codes_and_fills_missing_columns_with_nan():
    bits = np.arange(9) * 10.0
    rows = [packed(score=RIGHT, bits=bits), packed(score=RIGHT / 2, bits=bits + 70_000), packed(score=RIGHT)]
    assert {row.columns["bits"][0] for row in rows[:2]} == {"h", "f"} and {row.columns["score"][0] for row in rows} == {
        "b",
        "f",
    }
    assert stack(rows, "score").tolist() == [RIGHT.tolist(), (RIGHT / 2).tolist(), RIGHT.tolist()]
    found = stack(rows, "bits")
    assert found[0].tolist() == bits.tolist() and found[1] == pytest.approx(bits + 70_000)
    assert np.isnan(found[2]).all()


def test_margin_of_acc_norm_is_packed_with_its_sign():
    margin = np.array([0.3, -0.2, -1e-4, 0.25, 2.0, -3.0, 1e-4, -0.5, 0.7])
    normed = packed(score=RIGHT, **{"acc_norm,none": (margin > 0).astype(float), "margin": margin})
    assert normed.columns["margin"][0] == "h"
    found = normed.column("margin")
    assert found == pytest.approx(margin, rel=1e-3)
    assert ((found > 0) == (margin > 0)).all()
    assert packed(score=RIGHT, **{"acc,none": RIGHT, "margin": margin}).column("margin") is None
    other_roles = packed(score=RIGHT, **{"acc_norm,none": np.full(9, np.nan), "margin": margin})
    assert other_roles.column("margin") is None
