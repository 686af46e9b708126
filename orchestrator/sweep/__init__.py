"""The state of a sweep: what to run, what has finished, when to stop."""
