"""Layers that can carry an adapter."""

from trials.models.modules import Layout
from trials.spec import Lora


def test_only_a_list_of_names_may_choose_the_head():
    layout = Layout({"q_proj": 4}, {"q_proj": [2, 2], "lm_head": [8, 2]}, [], ["lm_head"], [], {}, {}, [], 8, 2, None)
    assert layout.candidates(Lora(target_modules="qkv")) == ["q_proj"]
    assert layout.candidates(Lora(target_modules=["lm_head"])) == ["q_proj", "lm_head"]
