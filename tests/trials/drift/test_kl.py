"""Rows that stand for all sources."""

from trials.drift import kl
from trials.mix import Example


def test_sample_takes_sources_in_turn():
    rows = {source: [Example(source, [number], [number]) for number in range(6)] for source in ("a", "b")}
    assert [(row.source, row.input_ids) for row in kl.sample(rows, 5)] == [
        ("a", [0]),
        ("b", [0]),
        ("a", [1]),
        ("b", [1]),
        ("a", [2]),
    ]
    assert len(kl.sample(rows, 100)) == 12
    assert kl.sample({}, 3) == []
