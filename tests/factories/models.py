"""Worlds for tests: models."""

import torch

SIZES = {"vocab_size": 97, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}


BEGINNING = [5, 9, 2, 33, 7, 1, 64, 8, 8, 90, 3, 12, 13, 14, 15, 16, 17, 18, 19, 20]


def prompts(count: int = 9) -> list[list[int]]:
    generator = torch.Generator().manual_seed(1)
    return [BEGINNING + torch.randint(1, 97, (1 + number * 5 % 11,), generator=generator).tolist() for number in range(count)]
