"""Pins enter the specs that depend on them, and no others."""

import datetime as dt

from orchestrator.config.pins import Pins, model_name, source_name, task_name
from tests.factories.own_tasks import SUMS, role
from trials.spec import Base, TrialSpec


def test_spec_takes_the_pins_it_depends_on(spec):
    pins = Pins(models={"micro": "sha256-a"}, data={"micro/gsm8k": "sha256-b", "alpaca": "sha256-c"})
    pinned = pins.into(spec)
    assert pinned.base.content == "sha256-a"
    assert pinned.data.content == {"micro/gsm8k": "sha256-b"}


def test_pins_of_other_inputs_keep_the_key(spec):
    assert Pins(models={"other": "x"}, data={"alpaca": "y"}).into(spec).key == spec.key
    assert Pins(date=dt.date(2026, 1, 1)).into(spec).key == spec.key  # its template writes no date


def test_earlier_pin_stays(spec):
    first = Pins(models={"micro": "sha256-a"}).into(spec)
    assert Pins(models={"micro": "sha256-b"}).into(first) == first


def test_only_keeps_what_both_have():
    pins = Pins(models={"a": "1", "b": "2"}, tasks={"t": {"d": "3"}})
    assert pins.only(Pins(models={"b": "9"})) == Pins(models={"b": "2"}, tasks={"t": {}})


def test_names_tell_revisions_and_files_apart(spec):
    assert model_name(Base(model="m", revision="r")) == "m@r"
    assert source_name(spec.data, "micro/gsm8k") == "micro/gsm8k"


def test_evaluations_in_a_chat_template_share_the_date_of_the_training(spec):
    parts = spec.model_dump(mode="json")
    parts["eval"]["math"]["chat_template"] = True
    chat = TrialSpec.model_validate(parts)
    pinned = Pins(date=dt.date(2026, 1, 1)).into(chat)
    assert pinned.eval["math"].date == dt.date(2026, 1, 1)
    assert pinned.eval["commonsense"].date is None
    assert pinned.baseline().key != chat.baseline().key
    assert Pins(date=dt.date(2026, 2, 2)).into(pinned) == pinned
    parts["data"] |= {"template": "chat", "date": "2025-01-02"}
    assert Pins(date=dt.date(2026, 1, 1)).into(TrialSpec.model_validate(parts)).eval["math"].date == dt.date(2025, 1, 2)


def test_tasks_of_two_folders_have_pins_of_their_own(spec):
    assert task_name("math", spec.eval["math"], "micro_gsm") == "micro_gsm"
    assert task_name("a", role(SUMS), "shop_sums") != task_name("b", role(SUMS), "shop_sums")
    pins = Pins(tasks={"eval.a.shop_sums": {"include/": "sha256:1"}})
    pinned = pins.into(spec.model_copy(update={"eval": {"a": role(SUMS), "b": role(SUMS)}}))
    assert (pinned.eval["a"].content, pinned.eval["b"].content) == ({"include/": "sha256:1"}, {})
    assert list(pins.flat()) == ["the folder of task eval.a.shop_sums"]
