"""The paper's ablations as sweeps."""
