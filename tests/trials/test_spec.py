"""A trial's key names what its numbers depend on, and nothing else."""

import pytest
from pydantic import ValidationError

from trials.spec import Derive, TrialSpec


def changed(spec: TrialSpec, section: str, **values) -> TrialSpec:
    return spec.model_copy(update={section: getattr(spec, section).model_copy(update=values)})


def test_key_survives_a_round_trip_and_changes_with_every_setting(spec):
    assert TrialSpec.model_validate_json(spec.model_dump_json()).key == spec.key
    others = [
        changed(spec, "base", revision="x"),
        changed(spec, "base", quantization="fp4"),
        changed(spec, "data", seed=1),
        changed(spec, "data", samples=33),
        changed(spec, "lora", rank=5),
        changed(spec, "train", learning_rate=1e-5),
        changed(spec, "train", seed=1),
    ]
    assert len({spec.key, *(other.key for other in others)}) == len(others) + 1


def test_key_of_older_records_stays(spec):
    assert (spec.key, spec.baseline().key) == ("b29bccdef9e59ff6", "2a50584535edbc28")


def test_baseline_is_independent_of_the_training(spec):
    other = changed(changed(spec, "lora", rank=32), "train", learning_rate=1e-5)
    assert other.baseline().key == spec.baseline().key != spec.key
    assert changed(spec, "base", quantization="fp4").baseline().key != spec.baseline().key


def test_source_without_share_is_not_in_the_key(spec):
    alone = changed(spec, "data", mix={"micro/alpaca": 1.0})
    with_zero = changed(spec, "data", mix={"micro/alpaca": 1.0, "micro/gsm8k": 0.0})
    assert alone.key == with_zero.key


def test_chat_settings_enter_the_key_as_they_take_effect(spec):
    def under(**fields) -> str:
        return changed_role(spec, **fields).key

    assert under(chat_template=False, fewshot_as_multiturn=False) == spec.key
    assert changed_role(spec, date="2026-01-02").key == spec.key, "no template writes it"
    chat = under(chat_template=True)
    assert chat == under(chat_template=True, fewshot_as_multiturn=True), "lm-eval's default"
    others = [
        {"fewshot_as_multiturn": False},
        {"system": "Be brief."},
        {"date": "2026-01-02"},
        {"chat_template": "tool_use"},
        {"enable_thinking": False},
        {"think_end_token": "</think>"},
        {"chat_template_args": {"reasoning_effort": "low"}},
    ]
    keys = {spec.key, chat, under(system="Be brief."), *(under(**{"chat_template": True} | one) for one in others)}
    assert len(keys) == len(others) + 3
    assert under(think_end_token="7") == under(think_end_token=7), "digits are a token's id, as HFLM reads them"
    assert changed_role(spec, chat_template=True).baseline().key != spec.baseline().key


def changed_role(spec: TrialSpec, **fields) -> TrialSpec:
    parts = spec.model_dump(mode="json")
    parts["eval"]["math"] |= fields
    return TrialSpec.model_validate(parts)


def test_key_of_a_source_from_before_conversations_is_unchanged():
    mine = {"dataset": "rows.jsonl", "instruction": "{{q}}", "response": "{{a}}"}
    data = {"samples": 8, "mix": {"mine": 0.5, "texts": 0.5}, "template": "chat"}
    data["sources"] = {"mine": mine, "texts": {"dataset": "some/texts", "text": "{{t}}"}}
    parts = {"base": {"model": "micro", "dtype": "float32"}, "eval": {"math": {"task": "t", "metric": "acc"}}, "data": data}
    assert TrialSpec.model_validate(parts).key == "ffe60bc957e62679"
    data["sources"]["mine"] = {"dataset": "rows.jsonl", "messages": "{{q}}"}
    with_messages = TrialSpec.model_validate(parts).key
    data["sources"]["mine"] = {"dataset": "rows.jsonl"}
    assert len({"ffe60bc957e62679", with_messages, TrialSpec.model_validate(parts).key}) == 3


def test_perplexity_of_masking_is_in_the_key_only_where_it_masks(spec):
    def key(**train):
        return spec.model_copy(update={"train": spec.train.model_copy(update=train)}).key

    assert key(mask_above=4.0) == key(loss="nll") == spec.key
    assert key(loss="dft", mask_above=4.0) == key(loss="dft") != spec.key
    assert key(loss="masked", mask_above=4.0) != key(loss="masked")


def test_key_holds_what_the_adapter_s_method_reads(spec):
    def key(**lora):
        return changed(spec, "lora", **lora).key

    assert key(method="lora") == key(block_size=8) == spec.key
    assert key(method="oft") == key(method="oft", rank=5, alpha=3) != key(method="oft", block_size=8)
    assert key(method="shira") == key(method="shira", alpha=3, block_size=8) != key(method="shira", rank=5)
    assert key(method="full") == key(method="full", rank=5, alpha=3, block_size=8)
    assert len({spec.key, key(method="oft"), key(method="shira"), key(method="full")}) == 4


@pytest.mark.parametrize(
    ("sections", "refusal"),
    [
        ({"lora": {"method": "oft"}, "train": {"l2": 0.1}}, "which lora.method oft does not have"),
        ({"lora": {"method": "shira"}, "derive": {"rank": 2}}, "derive.rank does not go with lora.method shira"),
    ],
)
def test_setting_of_lora_alone_is_refused_with_another_method(spec, sections, refusal):
    parts = spec.model_dump(mode="json")
    for section, values in sections.items():
        parts[section] |= values
    with pytest.raises(ValidationError, match=refusal):
        TrialSpec.model_validate(parts)


def test_derived_point_without_a_later_addition_keeps_its_key(spec):
    half = spec.model_copy(update={"derive": Derive(strength=0.5)})
    assert "shallow" not in half.canonical()["derive"]
    assert spec.model_copy(update={"derive": Derive(strength=0.5, shallow=0.0)}).key != half.key
