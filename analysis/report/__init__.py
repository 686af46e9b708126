"""The report of a sweep and its pages."""
