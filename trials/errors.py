"""The one exception that means: what was asked for cannot be done, and the user can put it right."""


class InputError(Exception):
    """Its text is what the user reads: one line a problem, saying what is wrong, where, and what would be right."""
