"""Too few usable rows are found before a trial."""

import json

import pytest

from tests.factories.rows import local_data
from trials.data.survey import Survey
from trials.errors import InputError
from trials.hub.hub import Hub
from trials.spec import TrialSpec


def test_too_few_usable_rows_are_reported_before_any_trial(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = [{"q": f"question {n % 5}", "a": "answer"} for n in range(60)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    parts = {"base": {"model": "micro", "dtype": "float32"}, "eval": {"math": {"task": "t", "metric": "acc"}}}
    spec = TrialSpec.model_validate(parts | {"data": local_data("rows.jsonl", samples=55)})
    with pytest.raises(InputError, match="copy of a held-out row"):
        Survey(Hub()).check(spec)


def chats(count: int) -> list[dict]:
    return [
        {"messages": [{"role": "user", "content": f"q{n}"}, {"role": "assistant", "content": f"a{n}"}]} for n in range(count)
    ]


def spec_of(sources: dict, **data) -> TrialSpec:
    parts = {"base": {"model": "micro", "dtype": "float32"}, "eval": {"math": {"task": "t", "metric": "acc"}}}
    mix = dict.fromkeys(sources, 1 / len(sources))
    return TrialSpec.model_validate(
        parts | {"data": {"samples": 4, "mix": mix, "sources": sources, "template": "plain"} | data}
    )


def write(folder, name: str, rows: list[dict]) -> None:
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_broken_conversation_is_found_even_if_no_trial_would_draw_it(folder):
    for broken, refusal in (
        (
            [{"role": "assistant", "content": "Hello"}],
            "rows.jsonl: row 31 (line 32): the conversation begins with the assistant",
        ),
        ([{"role": "narrator", "content": "x"}], r"rows.jsonl: row 31 (line 32): messages[0] has the unknown role 'narrator'"),
    ):
        write(folder, "rows.jsonl", chats(30))
        with (folder / "rows.jsonl").open("a") as file:
            file.write("\n" + json.dumps({"messages": broken}) + "\n")
        with pytest.raises(InputError) as caught:
            Survey(Hub()).check(spec_of({"mine": {"dataset": "rows.jsonl"}}))
        assert str(caught.value).startswith(f"source 'mine': {refusal}")


def test_unused_and_duplicate_rows_are_counted_with_their_places(folder):
    rows = [*chats(16), *chats(3), {"messages": []}, {"messages": [{"role": "user", "content": "alone"}]}]
    write(folder, "rows.jsonl", rows)
    survey = Survey(Hub())
    with pytest.raises(InputError, match="1 no messages"):
        survey.check(spec_of({"mine": {"dataset": "rows.jsonl"}}, samples=21))
    counts = survey.drawn()["mine"]
    assert counts.format == "messages, by its column messages (role, content)"
    assert counts.rows == 21
    assert counts.used + counts.left_out.total() == 21
    assert counts.left_out["no messages"] == counts.left_out["no turn of the assistant"] == 1
    assert counts.places["no messages"] == ["rows.jsonl: row 20"]
    assert counts.duplicates + counts.left_out["copy of a held-out row"] >= 1
    assert {name: counts.numbers()[name] for name in ("rows", "used", "duplicates")} == {
        "rows": 21,
        "used": counts.used,
        "duplicates": counts.duplicates,
    }


def test_two_sources_of_one_content_are_refused(folder):
    write(folder, "a.jsonl", chats(30))
    write(folder, "b.jsonl", chats(30))
    both = {name: {"dataset": f"{name}.jsonl"} for name in "ab"}
    with pytest.raises(InputError, match=r"sources 'a' \(a\.jsonl\) and 'b' \(b\.jsonl\) are the same file by content"):
        Survey(Hub()).check(spec_of(both))
    halves = {"a": both["a"] | {"split": "train[:50%]"}, "b": both["b"] | {"split": "train[50%:]"}}
    Survey(Hub()).check(spec_of(halves))
    write(folder, "b.jsonl", chats(31)[1:])
    Survey(Hub()).check(spec_of(both))


def test_conversations_need_a_template_that_takes_them(folder):
    write(folder, "rows.jsonl", chats(30))
    with pytest.raises(
        InputError, match=r"source 'mine': data\.template alpaca has one instruction .* write data\.template: chat"
    ):
        Survey(Hub()).check(spec_of({"mine": {"dataset": "rows.jsonl"}}, template="alpaca"))
    replayed = {"source": "mine", "share": 0.5, "control": "permuted"}
    with pytest.raises(InputError, match="needs solutions; source 'mine' is conversations"):
        Survey(Hub()).check(spec_of({"mine": {"dataset": "rows.jsonl"}}, mix={"micro/gsm8k": 1.0}, replay=replayed))
