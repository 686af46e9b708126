"""slimsweep from Python. A sweep is planned, run and read like this:

import slimsweep

config = slimsweep.config("configs/quickstart.yaml", {"search.trials": 8})
slimsweep.plan(config)
results = slimsweep.run(config, on_trial=lambda event: print(event.number, event.metrics))
results.front, results.trials, results.documents, results.plot()
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from orchestrator.api import Results, SweepPlan, config, plan, results, run
    from orchestrator.config.model import SweepConfig
    from orchestrator.errors import SweepFailed
    from orchestrator.planning.plan import Gpus
    from orchestrator.sweep.events import Event
    from trials.errors import InputError

__all__ = [
    "Event",
    "Gpus",
    "InputError",
    "Results",
    "SweepConfig",
    "SweepFailed",
    "SweepPlan",
    "config",
    "plan",
    "results",
    "run",
]
_ELSEWHERE = {
    "Event": "orchestrator.sweep.events",
    "Gpus": "orchestrator.planning.plan",
    "InputError": "trials.errors",
    "SweepConfig": "orchestrator.config.model",
    "SweepFailed": "orchestrator.errors",
}


def __getattr__(name: str) -> Any:
    """Imports on first use, so that `import slimsweep` takes no time."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_ELSEWHERE.get(name, "orchestrator.api")), name)


def __dir__() -> list[str]:
    return __all__
