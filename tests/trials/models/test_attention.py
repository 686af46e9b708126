"""A lent attention is given back, and what it reads is there while it is lent."""

from types import SimpleNamespace

import pytest

from trials.models import attention


def test_attention_is_lent_within_the_context_alone():
    model, active = SimpleNamespace(config=SimpleNamespace(_attn_implementation="sdpa")), ["outer"]
    with attention.lent(model, "ours", active, "inner"):
        assert (model.config._attn_implementation, active) == ("ours", ["outer", "inner"])
    assert (model.config._attn_implementation, active) == ("sdpa", ["outer"])


def test_attention_is_given_back_after_a_pass_that_fails():
    model, active = SimpleNamespace(config=SimpleNamespace(_attn_implementation="eager")), []
    with pytest.raises(ZeroDivisionError), attention.lent(model, "ours", active, 1):
        raise ZeroDivisionError
    assert (model.config._attn_implementation, active) == ("eager", [])
