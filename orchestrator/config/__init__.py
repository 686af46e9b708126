"""The YAML of a sweep: model, search space, shorthand, checks."""
