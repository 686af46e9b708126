"""The sections of a spec: their contradictions are refused, and docs/knobs.md lists their fields."""

import re
from pathlib import Path

import pytest
from pydantic import BaseModel, ValidationError

from trials.sections import Base, Data, Derive, Lora, Replay, Source, Train

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


def test_knobs_page_lists_every_searchable_field():
    documented = re.findall(r"^\| `([a-z_0-9.]+)` \|", KNOBS.read_text(), flags=re.MULTILINE)
    sections = {"data": Data, "lora": Lora, "train": Train, "derive": Derive}
    assert sorted(documented) == sorted(set().union(*(fields(section, path) for path, section in sections.items())))


@pytest.mark.parametrize(
    ("section", "fields", "refusal"),
    [
        (Source, {"dataset": "x", "text": "{{t}}", "response": "{{r}}"}, "instruction and response (and input), or text alone"),
        (Replay, {"share": 0.5}, "a share above 0 needs a source"),
        (Data, {"samples": 1, "mix": {"a": 0.5}}, "the shares add up to 0.5"),
        (Data, {"samples": 1, "mix": {"a": 1}, "replay": {"source": "a", "share": 0.5}}, "'a' is in the mix and replayed"),
        (Lora, {"init": "pissa", "use_dora": True}, "choose one of the two"),
        (Lora, {"init": "orthogonal", "rank": 3}, "an even rank"),
        (Lora, {"init": "pissa", "method": "oft"}, "init is a setting of method lora, and method is oft"),
        (Lora, {"use_dora": True, "method": "shira"}, "use_dora is a setting of method lora, and method is shira"),
        (Lora, {"dropout": 0.1, "method": "shira"}, "dropout is a setting of method lora, and method is shira"),
        (Train, {"batch_size": 12, "micro_batch_size": 8}, "not a multiple of micro_batch_size 8"),
        (Train, {"schedule": "wsd", "warmup": 0.5, "decay": 0.6}, "add up to more than 1"),
        (Train, {"epochs": True}, "expected a whole number, found true"),
    ],
)
def test_contradiction_is_refused(section, fields, refusal):
    with pytest.raises(ValidationError) as caught:
        section.model_validate(fields)
    assert refusal in str(caught.value)


def test_shares_and_rows_include_replay():
    data = Data(samples=80, mix={"a": 1.0}, replay=Replay(source="b", share=0.2, how="add"))
    assert data.shares == {"a": 0.8, "b": 0.2}
    assert data.rows == 100


def test_sections_are_frozen():
    with pytest.raises(ValidationError):
        Base(model="x").model = "y"
