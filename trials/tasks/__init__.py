"""Benchmarks as lm-eval tasks, and the halves of their documents."""
