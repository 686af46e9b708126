"""The same documents measured in another way, so that what a measurement adds can be told from what a model has lost."""
