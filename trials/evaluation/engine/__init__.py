"""Engines that run a model, the interface they share, and the adapter that puts any of them behind lm-eval."""
