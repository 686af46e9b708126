"""Sources of bases, data and tasks, and the identity of their content."""

from trials.hub.hub import Hub

__all__ = ["Hub"]
