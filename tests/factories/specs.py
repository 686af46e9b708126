"""Small specs by the real stack, and changes to a spec."""

from tests.factories.configs import CONFIG, deep
from trials.spec import TrialSpec


def small_spec() -> TrialSpec:
    parts = deep(CONFIG)
    parts["data"]["samples"] = 16
    for role in parts["eval"].values():
        role["documents"] = 4
    return TrialSpec.model_validate({name: parts[name] for name in TrialSpec.model_fields if name in CONFIG})


def changed(spec: TrialSpec, **sections) -> TrialSpec:
    parts = spec.model_dump(mode="json")
    return TrialSpec.model_validate({**parts, **{name: {**parts[name], **values} for name, values in sections.items()}})
