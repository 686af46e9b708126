"""Where bases, data and tasks come from, and what identifies their content."""

from trials.hub.hub import Hub

__all__ = ["Hub"]
