"""Training rows: files, sandboxed templates, decontamination, replay controls, batches."""
