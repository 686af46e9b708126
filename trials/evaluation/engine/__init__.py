"""Engines that answer lm-eval's requests."""
