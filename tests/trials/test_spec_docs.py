"""The documented knobs are those that a trial has."""

import re
from pathlib import Path

from pydantic import BaseModel

from trials.spec import Data, Derive, Lora, Train

KNOBS = Path(__file__).parents[2] / "docs" / "knobs.md"


def fields(section: type[BaseModel], path: str) -> set[str]:
    found = set()
    for name, field in section.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            found |= fields(inner, f"{path}.{name}")
        else:
            found.add(f"{path}.{name}")
    return found


def test_every_field_that_can_be_searched_is_documented_and_nothing_else():
    told = re.findall(r"^\| `([a-z_0-9.]+)` \|", KNOBS.read_text(), flags=re.MULTILINE)
    sections = {"data": Data, "lora": Lora, "train": Train, "derive": Derive}
    assert sorted(told) == sorted(set().union(*(fields(section, path) for path, section in sections.items())))
