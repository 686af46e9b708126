"""What docs/knobs.md says of rank and learning rate: how far one step of Adam moves the model, by rank and alpha."""

import pytest
import torch

from tests.factories.training import PAD, SETTINGS
from trials.adapters import peft_adapter
from trials.data.batching import collate
from trials.spec import Lora
from trials.training import trainer

RANKS = (16, 32, 64)
NEVER = trainer.Pace(seconds=float("inf"))


def moved(loaded, rows, lora: Lora) -> float:
    """Root mean square change of the queries of the first block after one step."""
    inputs = {name: value for name, value in collate(rows[:8], PAD).items() if name != "labels"}
    with peft_adapter.adapted(loaded, lora, 0) as model:
        (layer,) = [module for name, module in model.named_modules() if name.endswith("layers.0.self_attn.q_proj")]
        seen: list[torch.Tensor] = []
        hook = layer.register_forward_hook(lambda _, given, out: seen.append(out.detach().float()))
        with torch.no_grad():
            model.eval()(**inputs)
        trainer.fit(
            trainer.TrainingInputs(model, PAD, rows[:8], SETTINGS, lambda _: None, NEVER), trainer.beginning(model, SETTINGS)
        )
        seen[1:] = []
        with torch.no_grad():
            model(**inputs)
        hook.remove()
        return float((seen[1] - seen[0]).square().mean().sqrt())


def test_with_one_alpha_a_step_moves_the_model_alike_from_rank_16_on(loaded, rows):
    found = [moved(loaded, rows, Lora(rank=rank, alpha=16)) for rank in RANKS]
    assert max(found) < 1.5 * min(found)


def test_with_alpha_in_proportion_to_the_rank_a_step_moves_it_in_proportion(loaded, rows):
    found = [moved(loaded, rows, Lora(rank=rank, alpha=rank)) for rank in RANKS]
    assert [one / found[0] for one in found[1:]] == pytest.approx([2, 4], rel=0.3)
