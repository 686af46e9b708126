"""Worlds that tests share: configs, sweeps with planted truths, models, servers."""
