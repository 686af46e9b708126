"""Worlds for tests: adapters."""

import torch

from trials.training import trainer

IDS = torch.tensor([[5, 6, 7, 8, 9, 10], [11, 12, 13, 14, 15, 16]])
INITS = ["default", "gaussian", "orthogonal", "eva", "loftq", "pissa", "olora", "corda"]
CONVERTED = ["pissa", "olora", "corda"]
SETTINGS = {
    **{init: {"init": init} for init in INITS},
    "dora": {"use_dora": True, "dropout": 0.1},
    "dora-loftq": {"use_dora": True, "init": "loftq"},
    "rslora-pissa": {
        "use_rslora": True,
        "init": "pissa",
        "dropout": 0.1,
        "layers": "last-third",
        "target_modules": "all-linear",
    },
    "oft": {"method": "oft", "block_size": 16},
    "full": {"method": "full"},
    "shira": {"method": "shira", "layers": "last-third", "target_modules": "all-linear"},
}
"""Settings of an adapter by name."""
NEVER = trainer.Pace(seconds=1e9)


@torch.no_grad()
def logits(model) -> torch.Tensor:
    return model(input_ids=IDS).logits


def trained(model, loaded, rows, spec, start=None, save=lambda state: None, pace=NEVER):
    start = start or trainer.beginning(model, spec.train)
    return trainer.fit(trainer.TrainingInputs(model, loaded.tokenizer.pad_token_id, rows, spec.train, save, pace), start)


def close(found: torch.Tensor, wanted: torch.Tensor, within: float = 1e-4) -> bool:
    return bool((found - wanted).abs().max() <= within * wanted.abs().max())


def changed(model, seed: int = 0) -> None:
    """Changes the adapter's weights as a training would, without its cost."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.requires_grad:
                size = 0.05 * weight.abs().mean() if "magnitude" in name else 0.02
                weight += size * torch.randn(weight.shape, generator=generator)
