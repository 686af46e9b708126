"""Records, outcomes, checkpoints and leases of trials, and the storage that holds them."""
