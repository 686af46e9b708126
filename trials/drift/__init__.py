"""Drift of a tuned model from its base: KL divergence of its output, CKA of its hidden states."""
