"""Records in, judgement out: metrics against the baseline, their statistics, the Pareto front, its figures and the report.

import analysis
sweep = analysis.load("runs/quickstart")      # a folder, s3://..., gs://...
sweep.trials, sweep.front                      # pandas; see analysis.results.sweep.Sweep
analysis.trials("runs", "s3://bucket/runs/x")  # one frame of all sweeps in a storage root, and of another sweep
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from analysis.results.load import load, trials
    from analysis.results.sweep import Sweep

__all__ = ["Sweep", "load", "trials"]


def __getattr__(name: str) -> Any:
    """Imports on first use: whoever needs a constant of this package does not wait for pandas and scipy."""
    if name in __all__:
        from analysis.results import load as results

        return getattr(results, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
