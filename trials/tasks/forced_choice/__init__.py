"""Forced-choice twins of generated benchmarks."""
