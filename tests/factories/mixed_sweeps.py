"""Worlds for tests: sweeps whose trials have different mixes."""

import numpy as np

from tests.factories.sweeps import Builder

MIX = ["data.mix.alpaca", "data.mix.gsm8k"]


def mixed(builder: Builder, right, trials=28, levels=7, **manifest):
    """Trials of gsm8k shares 0 to 0.6 and ranks; `right` is how many of 50 documents of math a share gets right, on average."""
    random = np.random.default_rng(0)
    builder.baseline((20, 40))
    for number in range(trials):
        share, rank = round(0.1 * (number % levels), 3), int(random.choice([4, 8, 16]))
        spec = builder.spec(rank=rank, rate=1e-4 * (number + 1))
        data = spec.data.model_copy(update={"mix": {"alpaca": 1 - share, "gsm8k": share}})
        spec = spec.model_copy(update={"data": data})
        builder.record(spec, (25 + int(random.integers(-1, 2)), round(right(share) + random.normal(0, 0.8))))
        params = dict(zip(MIX, (1 - share, share), strict=True)) | {"lora.rank": rank}
        builder.trials.append({"number": number, "key": spec.key, "baseline": builder.base.key, "params": params})
    return builder.load(**{"space": [*MIX, "lora.rank"]} | manifest)
