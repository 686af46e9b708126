"""What a trial leaves: records, outcomes, checkpoints, leases, and the storage that holds them."""
