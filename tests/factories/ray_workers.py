"""Ray workers of a sweep, recognised by the titles of their processes."""

import psutil


def runs_a_trial(process: psutil.Process) -> bool:
    """Whether a trial runs in the process. Raises psutil.Error for a process that has ended or is another user's."""
    title = " ".join(process.cmdline())
    # Tune's title for the call comes first, then the worker's own (orchestrator/cluster/worker.py)
    return title.startswith("ray::slimsweep ") or (title.startswith("ray::") and title.endswith(".train"))
