"""A head that sees selected positions gives the logits of the whole model there."""

import pytest
import torch

from tests.fuzz import miniatures
from trials.models import lm_head


@pytest.fixture
def model():
    return miniatures.miniature("llama").eval()


def test_logits_equal_the_models_at_the_selected_places(model):
    inputs = {"input_ids": torch.tensor([[5, 6, 7, 8], [9, 10, 11, 12]])}
    places = torch.tensor([[True, False, False, True], [False, True, False, False]])
    with torch.no_grad():
        found, states = lm_head.logits_and_states(model, inputs, places)
        assert torch.allclose(found, model(**inputs).logits[places], atol=1e-6)
        assert torch.equal(lm_head.logits_of(model, states), found)
        assert torch.equal(lm_head.logits_at(model, inputs, places), found)
    assert not model.get_output_embeddings()._forward_pre_hooks


def test_predicting_positions_precede_their_tokens():
    assert lm_head.predicting(torch.tensor([[False, True]])).tolist() == [[False, True, False]]
