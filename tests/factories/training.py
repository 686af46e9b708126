"""Worlds for tests: training."""

from trials.spec import Train

PAD = 0


SETTINGS = Train(learning_rate=5e-3, batch_size=8, micro_batch_size=8, warmup=0.0)
