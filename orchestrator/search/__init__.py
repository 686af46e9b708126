"""Optuna: samplers, studies and the drivers that share one."""
