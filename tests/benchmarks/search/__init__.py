"""How much of the best front a sampler finds: `make bench-search`."""
