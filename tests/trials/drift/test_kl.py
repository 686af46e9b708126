"""Rows that stand for all sources."""

import pytest

from trials import mix
from trials.drift import kl
from trials.hub.hub import Hub
from trials.spec import Data


@pytest.fixture(scope="module")
def rows(loaded) -> dict[str, list[mix.Example]]:
    data = Data(samples=12, mix={"micro/alpaca": 0.5, "micro/gsm8k": 0.5})
    found: dict[str, list[mix.Example]] = {}
    for row in mix.build(data, Hub(), loaded.tokenizer):
        found.setdefault(row.source, []).append(row)
    return found


def test_sample_takes_sources_in_turn(rows):
    few = kl.sample(rows, 5)
    assert [row.source for row in few] == ["micro/alpaca", "micro/gsm8k", "micro/alpaca", "micro/gsm8k", "micro/alpaca"]
    assert len(kl.sample(rows, 100)) == 12
    assert kl.sample({}, 3) == []
