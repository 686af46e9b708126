"""What a sweep is pinned to: models, data and the date are settled when it begins, and stay so when it goes on.

Its sweep.yaml keeps the pins; every TrialSpec holds those that it depends on, so that a key names the very files.
"""

import datetime as dt
from typing import Any

from pydantic import Field

from trials.hub.hub import commit_of
from trials.spec import Base, Data, Section, TrialSpec


class Pins(Section):
    """By name: checksums of local files and commits of the hub (trials/hub/identity.py)."""

    models: dict[str, str] = Field(default={})
    data: dict[str, str] = Field(default={})
    """By source, or by data set for a source of the config itself."""
    tasks: dict[str, dict[str, str]] = Field(default={})
    """By task, then by data set."""
    date: dt.date | None = None
    """What a chat template takes for today; None where no template writes the date."""

    def into(self, spec: TrialSpec) -> TrialSpec:
        """The spec with those of the pins that it depends on; what it is pinned to already stays."""
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
        roles = {
            role: evaluation.model_copy(update={"content": self._of_tasks(evaluation.tasks) | evaluation.content})
            for role, evaluation in spec.eval.items()
        }
        return spec.model_copy(update={"base": base, "data": spec.data.model_copy(update=update), "eval": roles})

    def _of_tasks(self, names: tuple[str, ...]) -> dict[str, str]:
        return {dataset: pin for name in names for dataset, pin in self.tasks.get(name, {}).items()}

    def only(self, names: "Pins") -> "Pins":
        """Those that `names` has as well."""
        tasks = {task: _both(some, names.tasks.get(task, {})) for task, some in self.tasks.items()}
        date = self.date if names.date is not None else None
        return Pins(models=_both(self.models, names.models), data=_both(self.data, names.data), tasks=tasks, date=date)

    def flat(self) -> dict[str, str]:
        """Every pin but the date, by words for what it pins."""
        tasks = {f"{dataset} of task {name}": pin for name, some in self.tasks.items() for dataset, pin in some.items()}
        models = {f"the model {name}": pin for name, pin in self.models.items()}
        return models | {f"the data {name}": pin for name, pin in self.data.items()} | tasks


_NONE = Pins()


def _both(pins: dict[str, str], names: dict[str, str]) -> dict[str, str]:
    return {name: pin for name, pin in pins.items() if name in names}


def model_name(base: Base) -> str:
    return base.model + (f"@{base.revision}" if base.revision else "") + (f":{base.gguf}" if base.gguf else "")


def source_name(data: Data, name: str) -> str:
    """Sources of the config may be searched, and are told apart by what they read."""
    source = data.sources.get(name)
    return name if source is None else source.dataset + (f":{source.files}" if source.files else "")
