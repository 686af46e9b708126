"""Scoring a model on its benchmarks."""
