"""Labels and numbers for readers."""
