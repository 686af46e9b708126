"""The rule of the test split, and the draw of different rows."""

import random

import pytest

from trials.micro.split import distinct, held_out


def test_held_out_share_is_about_the_wanted_one_and_grows_with_it():
    small, large = ({n for n in range(4_000) if held_out(str(n), share)} for share in (0.2, 0.25))
    assert len(small) / 4_000 == pytest.approx(0.2, abs=0.02)
    assert small < large


def test_distinct_rows_are_different_and_seeded():
    def draw(rng: random.Random) -> dict:
        return {"number": rng.randrange(20)}

    rows = distinct(draw, 20, seed=1)
    assert sorted(row["number"] for row in rows) == list(range(20))
    assert rows == distinct(draw, 20, seed=1)
    assert rows[:5] == distinct(draw, 5, seed=1)
