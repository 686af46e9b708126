"""Answers to the paper's questions."""
