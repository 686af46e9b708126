"""Metrics of a tuned model against its base: definitions and names."""
