"""A few tokens on random weights reveal architectures that cannot be tuned."""

import pytest
from transformers import BertConfig, BertLMHeadModel

from trials.models import rehearsal


@pytest.mark.parametrize("causal", [True, False])
def test_model_that_attends_to_later_tokens_is_not_causal(causal):
    small = {"vocab_size": 64, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    found = rehearsal.failures(BertLMHeadModel(BertConfig(**small, is_decoder=causal)))
    assert ("no causal language model" in found.get("evaluation", "")) == (not causal)
