"""What a sweep has cost: hours of GPUs or CPU workers, hours, time a trial and time a phase."""

from typing import Any

import pandas as pd

from analysis.results.manifest import Manifest
from analysis.results.sweep import Sweep


def hours_name(sweep: Sweep) -> str:
    """The name of the hours that workers spent: a sweep without a GPU spends none of a GPU's."""
    on_gpu = any(record.hardware.get("gpu") for record in sweep.records.values())
    return "GPU-hours" if on_gpu else "worker-hours"


def cost(sweep: Sweep) -> dict[str, Any]:
    """`gpu_hours` (of CPU workers where there was no GPU, see `hours_name`) and `hours` as the sweep's commands counted them
    (None where none has), `trial_hours` over all records,
    `trials` that left one, and `median` and `longest` of a trial, in seconds (None where there is none)."""
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
    """Per phase over all records that have it, failed ones included, the longest first: records, and seconds."""
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
