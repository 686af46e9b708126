"""Training rows are measured in the base's tokens, without transformers."""

import json

import pytest

from orchestrator.planning.row_lengths import CHARACTERS, RowLengths
from tests.factories.chat_bases import chat_micro
from trials.hub.hub import Hub
from trials.models import base
from trials.spec import Base, Data


def test_mean_length_is_that_of_the_built_mix(spec):
    from transformers import AutoTokenizer

    from trials import mix

    hub = Hub()
    tokenizer = AutoTokenizer.from_pretrained(hub.locate(spec.base.model))
    rows = mix.build(spec.data.model_copy(update={"samples": 400}), hub, tokenizer)
    assert RowLengths(hub).mean(spec) == pytest.approx(sum(len(row.input_ids) for row in rows) / 400, rel=0.1)
    other = spec.data.model_copy(update={"mix": {"alpaca": 1.0}})  # on the hub alone
    assert RowLengths(hub).mean(spec.model_copy(update={"data": other})) is None


def test_lengths_of_a_small_source_are_known(spec, tmp_path):
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps({"text": "word " * n}) + "\n" for n in range(1, 11)))
    data = Data(samples=4, mix={"mine": 1.0}, sources={"mine": {"dataset": str(tmp_path / "rows.jsonl")}}, template="plain")
    hub = Hub()
    tokenizer = base.tokenizer(spec.base, hub)
    wanted = [len(tokenizer("word " * n)["input_ids"]) for n in range(1, 11)]
    assert RowLengths(hub).mean(spec.model_copy(update={"data": data})) == pytest.approx(sum(wanted) / 10, abs=1.5)


def test_lengths_depend_on_the_template(spec):
    lengths, of_templates = RowLengths(Hub()), {}
    for template in ("alpaca", "plain"):
        data = spec.data.model_copy(update={"template": template})
        of_templates[template] = lengths.mean(spec.model_copy(update={"data": data}))
        assert of_templates[template] == RowLengths(Hub()).mean(spec.model_copy(update={"data": data}))
    assert of_templates["alpaca"] > of_templates["plain"] + 10


def test_rows_with_tools_are_as_long_as_in_a_chat_template(spec, tmp_path):
    from trials import mix

    call = {"type": "function", "function": {"name": "weather", "arguments": {"city": "Rome"}}}
    tool = {"type": "function", "function": {"name": "weather", "description": "how warm it is in a city"}}
    turns = [
        {"role": "user", "content": "How warm is it in Rome today?"},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": "20"},
        {"role": "assistant", "content": "It is twenty degrees warm in Rome."},
    ]
    (tmp_path / "rows.jsonl").write_text((json.dumps({"messages": turns, "tools": [tool]}) + "\n") * 12)
    data = Data(samples=4, mix={"mine": 1.0}, sources={"mine": {"dataset": str(tmp_path / "rows.jsonl")}}, template="chat")
    template = (
        "{% for t in tools %}{{ t | tojson }}{% endfor %}{% for m in messages %}{{ m.role }}:\n{{ m.content }}"
        "{% for c in m.tool_calls or [] %}{{ c | tojson }}{% endfor %}{{ eos_token }}\n{% endfor %}"
    )
    chat = Base(model=str(chat_micro(tmp_path, template)), dtype="float32")
    everything = data.model_copy(update={"loss_on": "everything", "samples": 1})
    (row,) = mix.build(everything, Hub(), base.tokenizer(chat, Hub()))
    found = RowLengths(Hub()).mean(spec.model_copy(update={"base": chat, "data": data}))
    assert found == pytest.approx(len(row.input_ids), rel=0.15)


def test_local_rows_are_measured_without_a_tokenizer(spec, tmp_path):
    (tmp_path / "rows.jsonl").write_text((json.dumps({"text": "x" * 400}) + "\n") * 10)
    data = Data(samples=4, mix={"mine": 1.0}, sources={"mine": {"dataset": str(tmp_path / "rows.jsonl")}}, template="plain")
    unknown = Base(model="org/absent", dtype="float32")
    found = RowLengths(Hub()).mean(spec.model_copy(update={"base": unknown, "data": data}))
    assert found == pytest.approx(400 / CHARACTERS, abs=2)
