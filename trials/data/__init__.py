"""Training rows: sources, prompts, decontamination, mixtures, batches."""
