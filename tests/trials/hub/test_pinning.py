"""A pinned spec names the content that its trial will have."""

import datetime as dt
import json

import pytest

from orchestrator.config.model import SweepConfig
from tests.factories.chat_bases import CHAT, DATED, chat_micro
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


def test_date_of_a_chat_template_is_pinned_for_evaluations(spec, tmp_path):
    def under(chat: str, **data) -> TrialSpec:
        parts = spec.model_dump(mode="json")
        parts["base"]["model"] = str(chat_micro(tmp_path / f"{len(list(tmp_path.iterdir()))}", chat))
        parts["eval"]["math"]["chat_template"] = True
        parts["data"] |= data
        return pinned(TrialSpec.model_validate(parts), Hub())

    assert under(CHAT).eval["math"].date is None
    found = under(DATED)
    assert found.eval["math"].date is not None
    assert (found.eval["commonsense"].date, found.data.date) == (None, None), "they use no chat template"
    assert pinned(found, Hub()) == found
    assert under(DATED, template="chat", date="2025-01-02").eval["math"].date == dt.date(2025, 1, 2)
