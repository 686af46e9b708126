"""Adapters: their kinds, initialisation, target modules, and adapters derived from others."""
