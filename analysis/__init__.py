"""Records in, judgement out: metrics against the baseline, the Pareto front, its picture and the report."""
