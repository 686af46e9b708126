"""Finds the models and tasks in a folder that lm-eval's command line wrote, in any number of runs.

A run leaves `results_TIME.json` and, with --log_samples, one `samples_TASK_TIME.jsonl` a task. Where a model was evaluated on a
task several times, the newest run counts.
"""

import json
import os
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trials.errors import InputError
from trials.printable import one_line, printable_setting

_RESULTS = re.compile(r".+_(\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d(?:\.\d+)?)\.json")
_NUMBER = re.compile(r"(\d+)")
_SETTINGS = ("num_fewshot", "generation_kwargs", "filter_list", "metric_list", "output_type", "repeats")
"""Keys of a task's configuration that change outcomes and leave the prompts as they are."""


@dataclass(frozen=True)
class Run:
    """A results file of lm-eval."""

    path: Path
    time: str
    content: Mapping[str, Any]

    @property
    def model(self) -> str:
        """The model's name: its adapter, else its weights."""
        return str(self.content.get("model_name") or self.arguments.get("peft") or self.arguments.get("pretrained") or "model")

    @property
    def arguments(self) -> dict[str, str]:
        """lm-eval's --model_args. Older versions wrote one text, `pretrained=X,dtype=Y`."""
        given = self.setup.get("model_args") or {}
        if isinstance(given, str):
            given = dict(part.partition("=")[::2] for part in given.split(",") if part)
        pairs = given.items() if isinstance(given, dict) else ()
        return {str(name): printable_setting(str(name), value) for name, value in pairs}

    @property
    def setup(self) -> Mapping[str, Any]:
        """How lm-eval was called: device, limit, type of the weights and more."""
        return self._section("config")

    @property
    def dtype(self) -> str | None:
        """The weights' type, such as bfloat16, whatever the arguments requested. None if lm-eval did not write it."""
        found = self.setup.get("model_dtype")
        return one_line(found).removeprefix("torch.") if found else None

    @property
    def tasks(self) -> list[str]:
        return [name for name, config in self._section("configs").items() if isinstance(config, dict)]

    @property
    def groups(self) -> dict[str, list[str]]:
        """Members of each group of tasks."""
        found = self._section("group_subtasks")
        return {group: list(members) for group, members in found.items() if members and isinstance(members, list)}

    def config(self, task: str) -> dict[str, Any]:
        """The task's configuration as it ran."""
        return dict(self._section("configs")[task])

    def settings(self, task: str) -> dict[str, Any]:
        """The settings on which the task's outcomes depend beside the prompts; see `_SETTINGS`."""
        config = self.config(task)
        found = {name: config[name] for name in _SETTINGS if config.get(name) is not None}
        return {"version": self._section("versions").get(task), **found}

    def metrics(self, task: str) -> dict[str, float]:
        """The task's results by "metric,filter"."""
        found = self._section("results").get(task) or {}
        names = [name for name in found if "," in name and not name.partition(",")[0].endswith("_stderr")]
        return {name: found[name] for name in names if isinstance(found[name], int | float)}

    def documents(self, task: str) -> tuple[int, int] | None:
        """How many documents were evaluated, and how many the task has. None where the version did not write it."""
        found = self._section("n-samples").get(task)
        if not isinstance(found, dict):
            return None
        effective, original = found.get("effective"), found.get("original")
        return (effective, original) if isinstance(effective, int) and isinstance(original, int) else None

    def higher_is_better(self, task: str, metric: str) -> bool | None:
        """What lm-eval says of the metric; None where it says nothing."""
        found = self._section("higher_is_better").get(task)
        says = found.get(metric) if isinstance(found, dict) else None
        return says if isinstance(says, bool) else None

    def metric_entry(self, task: str, metric: str) -> Mapping[str, Any]:
        """The metric's entry in the task's metric_list; empty where there is none of its name."""
        listed = self.config(task).get("metric_list")
        entries = [one for one in listed if isinstance(one, dict)] if isinstance(listed, list) else []
        # a function of the task stands there as its source text
        return next(
            (one for one in entries if one.get("metric") == metric or str(one.get("metric")).startswith(f"def {metric}(")), {}
        )

    def digest(self, task: str) -> str | None:
        """lm-eval's digest of the task's samples."""
        return self._section("task_hashes").get(task)

    def samples(self, task: str) -> Path:
        """The task's file of samples, which need not exist."""
        return self.path.parent / f"samples_{task}_{self.time}.jsonl"

    def _section(self, name: str) -> Mapping[str, Any]:
        found = self.content.get(name)
        return found if isinstance(found, dict) else {}


@dataclass(frozen=True)
class Model:
    """A model that lm-eval evaluated, and the newest run of each of its tasks."""

    name: str
    folders: tuple[Path, ...]
    runs: Mapping[str, Run]

    @property
    def newest(self) -> Run:
        return max(self.runs.values(), key=lambda run: run.time)

    @property
    def members(self) -> dict[str, list[str]]:
        """Members of each group of tasks, in all runs."""
        return {group: members for run in self.runs.values() for group, members in run.groups.items()}

    def leaves(self, name: str) -> list[str]:
        """The single tasks of a task or group; empty where the model has none of this name."""
        found, left = [], [name]
        for one in left:  # grows while it is read; a group that contains itself is read once
            if one in self.runs:
                found.append(one)
            else:
                left += [member for member in self.members.get(one, ()) if member not in left]
        return found

    def tops(self) -> list[str]:
        """The groups and tasks that are in no group."""
        inside = {member for members in self.members.values() for member in members}
        return [name for name in dict.fromkeys([*self.members, *self.runs]) if name not in inside and self.leaves(name)]


def models(folder: Path) -> list[Model]:
    """The models below a folder, by name. InputError where there is none, or where a file is damaged."""
    if not folder.is_dir():
        raise InputError(f"{folder}: there is no such folder; name the --output_path of lm_eval")
    found = list(_runs(folder))
    if not found:
        raise InputError(
            f"{folder}: no results of lm-eval in it (results_TIME.json); name the folder that `lm_eval --output_path DIR "
            "--log_samples` wrote"
        )
    named: dict[str, dict[Path, list[Run]]] = defaultdict(lambda: defaultdict(list))
    for run in found:
        named[run.model][run.path.parent].append(run)
    made = [model for name, places in named.items() for model in _models(folder, name, places)]
    # tune-2 before tune-10
    return sorted(made, key=lambda model: [part.zfill(9) if part.isdecimal() else part for part in _NUMBER.split(model.name)])


def _models(folder: Path, name: str, places: Mapping[Path, Sequence[Run]]) -> Iterator[Model]:
    tasks = [{task for run in runs for task in run.tasks} for runs in places.values()]
    # runs of several folders are one model unless they repeat a task: ./merged of two projects is two models
    if sum(map(len, tasks)) == len(set().union(*tasks)):
        yield Model(one_line(name), tuple(places), _newest([run for runs in places.values() for run in runs]))
        return
    for place, runs in places.items():
        yield Model(one_line(f"{name} in {place.relative_to(folder)}"), (place,), _newest(runs))


def _newest(runs: Sequence[Run]) -> dict[str, Run]:
    return {task: run for run in sorted(runs, key=lambda run: run.time) for task in run.tasks}


def _runs(folder: Path) -> Iterator[Run]:
    for parent, folders, files in os.walk(folder):  # follows no link, so it ends
        folders.sort()
        for name in sorted(files):
            if match := _RESULTS.fullmatch(name):
                path = Path(parent, name)
                content = _read(path)
                if content is not None:
                    yield Run(path, match[1], content)


def _read(path: Path) -> dict[str, Any] | None:
    """The results; None for another program's JSON of a similar name."""
    try:
        content = json.loads(path.read_bytes())
    except ValueError as error:
        raise InputError(f"{path}: not whole JSON ({one_line(error)}); copy it again, or evaluate the model again") from None
    return content if isinstance(content, dict) and {"results", "configs"} <= content.keys() else None


def labels(names: Sequence[str]) -> dict[str, str]:
    """A unique short name for each model: the last part of its path, or as many parts as make it unique."""
    parts = {name: name.rstrip("/").split("/") for name in names}
    found: dict[str, str] = {}
    for count in range(1, 1 + max((len(one) for one in parts.values()), default=0)):
        tails = {name: "/".join(parts[name][-count:]) or name for name in parts if name not in found}
        taken = [*tails.values(), *found.values()]
        found |= {name: tail for name, tail in tails.items() if taken.count(tail) == 1}
    return {name: found.get(name, name) for name in names}
