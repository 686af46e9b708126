"""Worlds for tests: planted sweeps."""

import dataclasses

import numpy as np


def planted(sweep, n=120, **more):
    """Gain rises with the learning rate alone, forgetting with the product of rate and rank; the batch and decay do nothing."""
    rng = np.random.default_rng(0)
    frame = sweep.trials.iloc[[0] * n].reset_index(drop=True)
    frame["number"] = np.arange(n)
    frame["lora.rank"] = rng.choice([4, 8, 16, 32], n)
    frame["train.learning_rate"] = 10 ** rng.uniform(-5, -3, n)
    frame["train.schedule"] = rng.choice(["constant", "linear", "cosine"], n)
    frame["train.decay"] = 0.1
    up = 5 + np.log10(frame["train.learning_rate"])
    frame["commonsense.gain"] = 0.1 * up + rng.normal(0, 0.005, n)
    frame["math.forgetting"] = 0.1 * up * np.log2(frame["lora.rank"]) + rng.normal(0, 0.005, n)
    for name, values in more.items():
        frame[name] = values
    space = ("lora.rank", "train.learning_rate", "train.schedule", "train.decay")
    return dataclasses.replace(sweep, trials=frame, space=space)


def two_bases(sweep, overlap=True):
    """Base b forgets 0.1 more than a at any learning; it learns more, so that means would tell more than that."""
    n = 60
    rng = np.random.default_rng(1)
    learnt = np.concatenate([rng.uniform(0, 2, n // 2), rng.uniform(1 if overlap else 3, 4, n // 2)])
    forgot = 0.2 * learnt + np.repeat([0.0, 0.1], n // 2) + rng.normal(0, 0.01, n)
    found = planted(sweep, n, **{"learning.gain": learnt, "math.forgetting": forgot, "baseline": np.repeat(["a", "b"], n // 2)})
    return dataclasses.replace(found, metrics=(*found.metrics, "learning.gain"))
