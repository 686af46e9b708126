"""Ray Tune's side of the search: suggests what the sweep hands out and reports what came of it.

It keeps no state of its own; Tune's snapshots of a searcher are never read back.
"""

from collections.abc import Callable
from typing import Any

import sqlalchemy.exc
from optuna.exceptions import StorageInternalError
from ray.tune.search import Searcher

from orchestrator.errors import SweepFailed
from orchestrator.sweep import Sweep
from trials.errors import InputError


class StudySearcher(Searcher):
    def __init__(self, sweep: Sweep, slots: Callable[[], int]):
        """`slots` says how many trials fit on the cluster now."""
        super().__init__()
        self._sweep, self._slots = sweep, slots
        self._keys: dict[str, str] = {}
        self.error: Exception | None = None
        """What broke the sweep itself (its study, its folder); nothing more is handed out then."""

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:  # type: ignore[override]  # Ray leaves FINISHED out
        sweep = self._sweep
        sweep.slots = self._slots()
        job = None
        if self.error is None and len(sweep.running) < sweep.slots:
            job = self._guard(sweep.next_job)
        if job is not None:
            self._keys[trial_id] = job.spec.key
            return {"spec": job.spec.model_dump_json(), "keep": sweep.config.kept(job.spec)}
        return Searcher.FINISHED if self.error is not None or sweep.over else None

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        key = self._keys.pop(trial_id)
        if error or result is None:
            self._guard(lambda: self._sweep.finish(key, "died", "the worker process died, at every attempt"))
        else:
            self._guard(lambda: self._sweep.finish(key, result["end"], result["reason"], result.get("seconds")))

    def _guard(self, call: Callable[[], Any]) -> Any:
        """Keeps what goes wrong with study or storage until the running trials have ended."""
        try:
            return call()
        except (StorageInternalError, sqlalchemy.exc.OperationalError) as error:
            cause = error.__cause__ or error
            self.error = self.error or SweepFailed(f"the study cannot be written: {' '.join(str(cause).split())[:200]}")
        except (OSError, InputError) as error:
            self.error = self.error or error

    def __getstate__(self) -> dict[str, Any]:
        """Tune pickles its searcher into its snapshot, which nobody reads; the sweep holds a lock and a database."""
        return {}

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the study is the state."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: the study is the state."""
