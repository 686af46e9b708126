"""Ray Tune's side of the search: suggests what the sweep hands out and reports what came of it.

It keeps no state of its own; Tune's snapshots of a searcher are never read back.
"""

from typing import Any

from ray.tune.search import Searcher

from orchestrator.sweep import Sweep


class StudySearcher(Searcher):
    def __init__(self, sweep: Sweep):
        super().__init__()
        self._sweep = sweep
        self._keys: dict[str, str] = {}

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:  # type: ignore[override]  # Ray leaves FINISHED out
        job = self._sweep.next_job()
        if job is None:
            return Searcher.FINISHED
        self._keys[trial_id] = job.spec.key
        return {"spec": job.spec.model_dump_json()}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        self._sweep.finish(self._keys.pop(trial_id), died="the worker process died" if error else None)

    def __getstate__(self) -> dict[str, Any]:
        """Tune pickles its searcher into its snapshot, which nobody reads; the sweep holds a lock and a database."""
        return {}

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the study is the state."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: the study is the state."""
