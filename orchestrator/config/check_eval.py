"""Checks of `eval`: the folders of a user's own tasks, and files of questions."""

from collections.abc import Iterator
from typing import Any

from orchestrator.config.model import SweepConfig
from orchestrator.config.parameters import Paired
from trials.explain import Problem
from trials.tasks import own_tasks, questions


def _searched(config: SweepConfig) -> set[str]:
    # the space's own names, since nothing is known yet of its structure
    return {*config.space, *(path for one in config.space.values() if isinstance(one, Paired) for path in one.root[0])}


def question_problems(config: SweepConfig, written: Any) -> Iterator[Problem]:
    """`written`: the roles as the config has them. Files of questions become tasks before the space is known."""
    for role, fields in written.items() if isinstance(written, dict) else ():
        if (path := f"eval.{role}.chat_template") not in _searched(config) or not isinstance(fields, dict):
            continue
        if "questions" in fields and questions.ends_by_template(fields):
            yield (
                ("space",),
                f"space: {path}: what ends a response by default is not the same with and without a chat template; give "
                f"eval.{role} an `until`",
            )


def problems(config: SweepConfig) -> Iterator[Problem]:
    searched = _searched(config)
    for role, evaluation in config.eval.items():
        for key in ("include", "trust_code"):
            if (path := f"eval.{role}.{key}") in searched:  # trials on two folders would have baselines of one name
                yield ("space",), f"space: {path} is no setting to search; give each folder a role of its own"
        for key, text in own_tasks.problems(evaluation):
            if key in ("task", "metric") and searched & {f"eval.{role}.task", f"eval.{role}.{key}"}:
                continue  # the space replaces it
            yield ("eval", role, key), f"eval.{role}.{key}: {text}"
