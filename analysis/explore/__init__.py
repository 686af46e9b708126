"""Questions about a sweep: what mattered, what was worth its cost, what to choose."""
