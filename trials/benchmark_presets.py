"""Benchmark presets: the fields of an evaluation by the benchmark's name.

A package inside `trials` adds presets with a `benchmarks.yaml`.
"""

import difflib
from functools import cache
from pathlib import Path
from typing import Any

from trials.yaml_file import YamlFile

OF_QUESTIONS = ("questions", "prompt", "answer", "choices", "score", "until", "max_tokens")
"""The keys of a role that describe a file of questions (see trials/tasks/questions.py)."""
_HERE = Path(__file__).parent


@cache
def benchmarks() -> dict[str, dict[str, Any]]:
    """The presets by name."""
    found: dict[str, dict[str, Any]] = {}
    for path in [_HERE / "benchmarks.yaml", *sorted(_HERE.rglob("*/benchmarks.yaml"))]:
        found |= YamlFile(path).data
    return found


def expand(given: Any) -> Any:
    """The fields of `NAME` or `{preset: NAME, ...}`; fields beside the name override the preset's. Anything else is unchanged.

    Raises ValueError for an unknown preset, or for a preset together with a task.
    """
    if isinstance(given, str):
        given = {"preset": given}
    if not isinstance(given, dict) or "preset" not in given:
        return given
    name, others = given["preset"], {key: value for key, value in given.items() if key != "preset"}
    if not isinstance(name, str) or name not in benchmarks():
        near = difflib.get_close_matches(str(name), benchmarks(), n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        known = ", ".join(sorted(benchmarks()))
        # a ValueError, which pydantic reports at its place in the config
        raise ValueError(
            f"no preset {name!r}; {hint}known: {known}; another task of lm-eval goes with its metric: {{task, metric}}"
        )
    if "task" in others:
        raise ValueError(f"preset {name!r} has its task; give a preset or a task, not both")
    return {**benchmarks()[name], **others}
