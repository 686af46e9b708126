"""Pins of a sweep: the identities of models and data, and the date, fixed when it begins and kept in its sweep.yaml.

Every TrialSpec holds the pins that it depends on, so that its key names exact files.
"""

import datetime as dt
from typing import Any

from pydantic import Field

from trials.evaluation_section import FOLDER
from trials.hub.hub import commit_of
from trials.spec import Base, Data, Evaluation, Section, TrialSpec


class Pins(Section):
    """By name: checksums of local files and commits of the hub (trials/hub/identity.py)."""

    models: dict[str, str] = Field(default={})
    """By model."""
    data: dict[str, str] = Field(default={})
    """By source, or by data set for a source that the config defines."""
    tasks: dict[str, dict[str, str]] = Field(default={})
    """By `task_name`, then by data set; FOLDER is the task's folder."""
    date: dt.date | None = None
    """Today in a chat template; None if no template writes the date."""

    def into(self, spec: TrialSpec) -> TrialSpec:
        """The spec with the pins that it depends on. Its earlier pins stay."""
        if self == _NONE:
            return spec
        base, pin = spec.base, self.models.get(model_name(spec.base))
        if pin is not None and base.content is None:
            commit = commit_of(pin)
            base = base.model_copy(update={"revision": commit} if commit else {"content": pin})
        data = {name: pin for name in spec.data.shares if (pin := self.data.get(source_name(spec.data, name)))}
        update: dict[str, Any] = {"content": data | spec.data.content}
        if spec.data.template == "chat" and spec.data.date is None:
            update["date"] = self.date
        roles = {}
        for role, evaluation in spec.eval.items():
            pinned: dict[str, Any] = {"content": self._of_tasks(role, evaluation) | evaluation.content}
            if evaluation.chat_template and evaluation.date is None and self.date is not None:
                pinned["date"] = spec.data.date or self.date
            roles[role] = evaluation.model_copy(update=pinned)
        return spec.model_copy(update={"base": base, "data": spec.data.model_copy(update=update), "eval": roles})

    def _of_tasks(self, role: str, evaluation: Evaluation) -> dict[str, str]:
        names = (task_name(role, evaluation, name) for name in evaluation.tasks)
        return {dataset: pin for name in names for dataset, pin in self.tasks.get(name, {}).items()}

    def only(self, names: "Pins") -> "Pins":
        """The pins that `names` has too."""
        tasks = {task: _both(some, names.tasks.get(task, {})) for task, some in self.tasks.items()}
        date = self.date if names.date is not None else None
        return Pins(models=_both(self.models, names.models), data=_both(self.data, names.data), tasks=tasks, date=date)

    def flat(self) -> dict[str, str]:
        """Every pin but the date, by a description."""
        tasks = {
            f"{'the folder' if dataset == FOLDER else dataset} of task {name}": pin
            for name, some in self.tasks.items()
            for dataset, pin in some.items()
        }
        models = {f"the model {name}": pin for name, pin in self.models.items()}
        return models | {f"the data {name}": pin for name, pin in self.data.items()} | tasks


_NONE = Pins()


def _both(pins: dict[str, str], names: dict[str, str]) -> dict[str, str]:
    return {name: pin for name, pin in pins.items() if name in names}


def model_name(base: Base) -> str:
    return base.model + (f"@{base.revision}" if base.revision else "") + (f":{base.gguf}" if base.gguf else "")


def task_name(role: str, evaluation: Evaluation, name: str) -> str:
    """Name of a task's pins. Folders of two roles may have the same name for two tasks."""
    return name if evaluation.include is None else f"eval.{role}.{name}"


def source_name(data: Data, name: str) -> str:
    """Name of a source's pin. A source of the config is named by its files, since they may be searched."""
    source = data.sources.get(name)
    return name if source is None else source.dataset + (f":{source.files}" if source.files else "")
