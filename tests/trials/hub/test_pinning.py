"""A pinned spec names the content that its trial will have."""

import json

import pytest

from orchestrator.config.model import SweepConfig
from trials.hub.hub import Hub
from trials.hub.pinning import pinned
from trials.spec import TrialSpec


@pytest.fixture
def spec(parts, tmp_path) -> TrialSpec:
    lines = [json.dumps({"q": f"say {number}", "a": "yes"}) for number in range(40)]
    (tmp_path / "rows.jsonl").write_text("\n".join(lines) + "\n")
    mine = {"dataset": str(tmp_path / "rows.jsonl"), "instruction": "{{q}}", "response": "{{a}}"}
    parts["data"] |= {"mix": {"mine": 1.0}, "sources": {"mine": mine}}
    return SweepConfig.model_validate(parts).spec({"lora.rank": 4})


def test_pinned_spec_survives_a_round_trip(spec):
    found = pinned(spec, Hub())
    assert TrialSpec.model_validate_json(found.model_dump_json()).key == found.key != spec.key


def test_pins_are_kept(spec, tmp_path):
    found = pinned(spec, Hub())
    (tmp_path / "rows.jsonl").write_text('{"q": "another", "a": "no"}\n')
    assert pinned(found, Hub()) == found


def test_baseline_pins_no_rows(spec):
    assert not pinned(spec.baseline(), Hub()).data.content
