"""Cost of a sweep before it starts."""
