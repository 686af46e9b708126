"""The phases of one trial, from its spec to its record."""
