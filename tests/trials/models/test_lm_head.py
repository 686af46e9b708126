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
        found, whole = lm_head.run(model, inputs, places, layers=True), model(**inputs, output_hidden_states=True)
        assert torch.allclose(found.logits, whole.logits[places], atol=1e-6)
        assert torch.equal(lm_head.logits_of(model, found.states), found.logits)
        assert all(torch.equal(one, other) for one, other in zip(found.layers, whole.hidden_states, strict=True))
        assert torch.equal(lm_head.logits_at(model, inputs, places), found.logits)
    assert not model.get_output_embeddings()._forward_pre_hooks


def test_predicting_positions_precede_their_tokens():
    assert lm_head.predicting(torch.tensor([[False, True]])).tolist() == [[False, True, False]]
