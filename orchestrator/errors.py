"""The error that ends a sweep, other than bad input."""


class SweepFailed(Exception):
    """The sweep cannot go on, or was stopped. The text is the cause in one line."""
