"""Checks of `eval`: the folders of a user's own tasks."""

from collections.abc import Iterator

from orchestrator.config.model import SweepConfig
from orchestrator.config.parameters import Paired
from trials.explain import Problem
from trials.tasks import own_tasks


def problems(config: SweepConfig) -> Iterator[Problem]:
    # the space's own names, since nothing is known yet of its structure
    searched = {*config.space, *(path for one in config.space.values() if isinstance(one, Paired) for path in one.root[0])}
    for role, evaluation in config.eval.items():
        for key in ("include", "trust_code"):
            if (path := f"eval.{role}.{key}") in searched:  # trials on two folders would have baselines of one name
                yield ("space",), f"space: {path} is no setting to search; give each folder a role of its own"
        for key, text in own_tasks.problems(evaluation):
            if key == "task" and f"eval.{role}.task" in searched:
                continue  # the space replaces it
            yield ("eval", role, key), f"eval.{role}.{key}: {text}"
