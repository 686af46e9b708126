"""Checks of `eval`: the folders of a user's own tasks."""

from collections.abc import Iterator

from orchestrator.config.model import SweepConfig
from trials.explain import Problem
from trials.tasks import own_tasks


def problems(config: SweepConfig) -> Iterator[Problem]:
    for role, evaluation in config.eval.items():
        for key in ("include", "trust_code"):
            path = f"eval.{role}.{key}"
            if path in config.paths():  # trials on two folders would have baselines that cannot be told apart
                yield ("space",), f"space: {path} is no setting to search; give each folder a role of its own"
        for key, text in own_tasks.problems(evaluation):
            if key == "task" and f"eval.{role}.task" in config.paths():
                continue  # the space replaces it
            yield ("eval", role, key), f"eval.{role}.{key}: {text}"
