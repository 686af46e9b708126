"""Training rows are measured in the base's tokens, without transformers."""

import pytest

from orchestrator.planning.row_lengths import RowLengths
from trials.hub.hub import Hub


def test_mean_length_is_that_of_the_built_mix(spec):
    from transformers import AutoTokenizer

    from trials import mix

    hub = Hub()
    tokenizer = AutoTokenizer.from_pretrained(hub.locate(spec.base.model))
    rows = mix.build(spec.data.model_copy(update={"samples": 400}), hub, tokenizer)
    assert RowLengths(hub).mean(spec) == pytest.approx(sum(len(row.input_ids) for row in rows) / 400, rel=0.1)
    other = spec.data.model_copy(update={"mix": {"alpaca": 1.0}})  # on the hub alone
    assert RowLengths(hub).mean(spec.model_copy(update={"data": other})) is None
