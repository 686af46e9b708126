"""Cost of a sweep: hours of GPUs or CPU workers, wall-clock hours, time per trial and per phase."""

from typing import Any

import pandas as pd

from analysis.results.manifest import Manifest
from analysis.results.sweep import Sweep


def hours_name(sweep: Sweep) -> str:
    """ "GPU-hours", or "worker-hours" where no trial ran on a GPU."""
    on_gpu = any(record.hardware.get("gpu") for record in sweep.records.values())
    return "GPU-hours" if on_gpu else "worker-hours"


def cost(sweep: Sweep) -> dict[str, Any]:
    """`gpu_hours` (see `hours_name`) and `hours` as the sweep's commands counted them, `trial_hours` over all records, `trials`
    that left one, and `median` and `longest` of a trial in seconds. None where unknown."""
    spent = Manifest.read(sweep.folder).spent
    seconds = sweep.trials["seconds"].dropna()
    together = sum(sum(record.seconds.values()) for record in sweep.records.values())
    return {
        "gpu_hours": spent[0] / 3600 if spent else None,
        "hours": spent[1] / 3600 if len(spent) > 1 else None,
        "trial_hours": together / 3600,
        "trials": len(seconds),
        "median": float(seconds.median()) if len(seconds) else None,
        "longest": float(seconds.max()) if len(seconds) else None,
    }


def phases(sweep: Sweep) -> list[dict[str, Any]]:
    """Seconds per phase over all records, failed ones included, the longest phase first."""
    seconds = pd.DataFrame([record.seconds for record in sweep.records.values()], dtype=float)
    return [
        {
            "phase": str(phase),
            "records": int(seconds[phase].count()),
            "median": float(seconds[phase].median()),
            "longest": float(seconds[phase].max()),
            "together": float(seconds[phase].sum()),
        }
        for phase in seconds.sum().sort_values(ascending=False).index
    ]
