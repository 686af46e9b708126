"""What ends a sweep beside bad input."""


class SweepFailed(Exception):
    """The sweep cannot go on, or was stopped: the cause in one line."""
