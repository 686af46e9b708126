"""A plan counts the rows of local files and refuses roles that their task cannot serve."""

import json

import pytest

from orchestrator.config.model import SweepConfig
from orchestrator.console.plan_table import table
from orchestrator.planning.plan import Gpus, plan
from trials import mix
from trials.errors import InputError


def test_local_rows_are_counted_or_refused(parts, tmp_path):
    rows = [{"q": f"question {n}", "a": f"answer {n}" if n % 3 else None} for n in range(60)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    mine = {"dataset": str(tmp_path / "rows.jsonl"), "instruction": "{{q}}", "response": "{{a}}"}
    parts["data"] = {"samples": 30, "mix": {"mine": 1.0}, "sources": {"mine": mine}}
    parts["space"] = {"lora.rank": {"type": "categorical", "choices": [2, 4]}}
    counts = plan(SweepConfig.model_validate(parts), tmp_path, Gpus("T4")).rows["mine"]
    assert counts["rows"] == 60 and counts["used"] == 30 and counts["no response"] > 0
    for change, expected in (
        ({"response": "{{answer}}"}, r"'answer' is undefined; the columns are q, a"),
        ({"dataset": str(tmp_path / "nowhere.jsonl")}, "no file"),
    ):
        parts["data"]["sources"] = {"mine": mine | change}
        with pytest.raises(InputError, match=expected):
            plan(SweepConfig.model_validate(parts), tmp_path, Gpus("T4"))


def test_format_and_uses_of_conversations_are_named(parts, tmp_path):
    def chat(number: int, answer: str) -> dict:
        return {"messages": [{"role": "user", "content": f"q{number}"}, {"role": "assistant", "content": answer}], "id": number}

    def odd(number: int) -> dict:
        made = chat(number, "word")
        return made | {"messages": [made["messages"][0], *made["messages"]]}

    rows = [odd(n) if n == 9 else chat(n, "word " * (60 if n % 4 == 0 else 2)) for n in range(30)] + [
        {"messages": [], "id": 30}
    ]
    (tmp_path / "chats.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    sources = {"mine": {"dataset": str(tmp_path / "chats.jsonl")}}
    parts["data"] = {"samples": 27, "mix": {"mine": 1.0}, "sources": sources, "template": "plain", "max_length": 32}
    config = SweepConfig.model_validate(parts)
    made = plan(config, tmp_path, Gpus("T4"))
    assert made.formats == {"mine": "messages, by its column messages (role, content); not read: id"}
    counts = made.rows["mine"]
    held_out = mix.permutation("mine, held out", 31, 0)[:3].tolist()
    assert not {9, 30} & set(held_out), "the empty and the odd row are drawn"
    assert counts["rows"] == 31 and counts["used"] == 27, "every row that is left"
    assert counts["cut"] == len(set(range(0, 30, 4)) - set(held_out)) and counts["cut_tokens"] >= 40 * counts["cut"]
    assert made.unused == {"mine": {"no messages": [f"{tmp_path}/chats.jsonl: row 31"]}}
    shown = dict(zip(*(column.cells for column in table(made, config).columns), strict=True))["rows of mine"]
    assert shown.startswith("messages, by its column messages (role, content); not read: id\n27 of 31 used at most; ")
    assert f"{counts['cut']} of them cut at data.max_length, {counts['cut_tokens']:,} tokens of the loss lost" in shown
    assert shown.endswith(f"1 row has two turns of one role in a row (first: {tmp_path}/chats.jsonl: row 10)")


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"shots": 100_000}, "eval.math.shots: 100000 requested, task micro_gsm has"),
        ({"documents": 10_000}, "eval.math.documents: 10000 requested, micro_gsm has"),
        ({"metric": "nope"}, "eval.math: task micro_gsm measures exact_match"),
    ],
)
def test_role_that_its_task_cannot_serve_is_refused(parts, tmp_path, change, expected):
    parts["eval"]["math"] |= change
    with pytest.raises(InputError, match=expected):
        plan(SweepConfig.model_validate(parts), tmp_path)


def test_base_without_a_chat_template_is_refused(parts, tmp_path):
    parts["eval"]["math"]["chat_template"] = True
    with pytest.raises(InputError, match=r"eval.math.chat_template: the tokenizer of .*micro has no chat template"):
        plan(SweepConfig.model_validate(parts), tmp_path)
