"""Too few usable rows are found before a trial."""

import json

import pandas as pd
import pytest

from tests.factories.rows import Letters, local_data
from trials import mix
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
    shares = dict.fromkeys(sources, 1 / len(sources))
    return TrialSpec.model_validate(
        parts | {"data": {"samples": 4, "mix": shares, "sources": sources, "template": "plain"} | data}
    )


def write(folder, name: str, rows: list[dict]) -> None:
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_table(folder, name: str, rows: list[dict]) -> None:
    pd.DataFrame(rows).to_parquet(folder / name)


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


def test_unusable_conversations_are_counted_whether_or_not_a_trial_draws_them(folder):
    unanswered = {"messages": [{"role": "user", "content": "alone"}]}
    write(folder, "rows.jsonl", [*chats(60), unanswered, unanswered])
    for _ in range(2):  # read, and kept from then on
        survey = Survey(Hub())
        survey.check(spec_of({"mine": {"dataset": "rows.jsonl"}}, samples=2))
        counts = survey.drawn()["mine"]
        assert counts.used == 2
        assert counts.unusable == {"no turn of the assistant": (2, "rows.jsonl: row 61")}


def test_unusual_conversations_are_used_and_counted_with_the_first_place(folder):
    odd = [[*one["messages"], one["messages"][1]] for one in chats(30)]
    write(folder, "rows.jsonl", [{"messages": messages} for messages in odd])
    survey = Survey(Hub())
    survey.check(spec_of({"mine": {"dataset": "rows.jsonl"}}, samples=20))
    counts = survey.drawn()["mine"]
    assert counts.used == 20
    (oddity,) = counts.unusual
    count, first = counts.unusual[oddity]
    assert (oddity, count) == ("two turns of one role in a row", 20)
    assert first.startswith("rows.jsonl: row ")


def test_two_sources_of_one_content_are_refused(folder):
    write(folder, "a.jsonl", chats(30))
    write(folder, "b.jsonl", chats(30))
    both = {name: {"dataset": f"{name}.jsonl"} for name in "ab"}
    with pytest.raises(InputError, match=r"sources 'a' \(a\.jsonl\) and 'b' \(b\.jsonl\) are the same file by content"):
        Survey(Hub()).check(spec_of(both))
    write(folder, "b.jsonl", chats(31)[1:])
    Survey(Hub()).check(spec_of(both))


@pytest.mark.parametrize(
    ("splits", "row"),
    [
        (["train[:50%]", "train[50%:]"], None),
        (["train[:50%]", "train[40%:]"], 13),
        (["train[:30%]", "train[50%:]", "train"], 1),
        (["train[20:]", "train[10:20]", "train[:10]"], None),
    ],
)
@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
def test_row_that_two_sources_take_is_refused(folder, splits, row, ending):
    for number in range(len(splits)):
        (write if ending == "jsonl" else write_table)(folder, f"{number}.{ending}", chats(30))
    sources = {f"s{number}": {"dataset": f"{number}.{ending}", "split": split} for number, split in enumerate(splits)}
    if row is None:
        Survey(Hub()).check(spec_of(sources))
        return
    with pytest.raises(InputError, match=rf"are the same file by content, and both take row {row} of it"):
        Survey(Hub()).check(spec_of(sources))


def test_rows_of_a_shared_file_are_found_in_a_pattern_of_files(folder):
    for number in range(3):
        write(folder, f"part-{number}.jsonl", chats(30 + number))
    parts = {"dataset": "part-*.jsonl"}  # rows 1 to 30, 31 to 61, 62 to 93
    alone = {"dataset": "part-1.jsonl"}
    with pytest.raises(InputError, match=r"\(part-1\.jsonl\) and 'b' \(part-1\.jsonl\) .* both take row 25 of it"):
        Survey(Hub()).check(spec_of({"a": parts | {"split": "train[:60]"}, "b": alone | {"split": "train[24:]"}}))
    Survey(Hub()).check(spec_of({"a": parts | {"split": "train[:54]"}, "b": alone | {"split": "train[24:]"}}))


def test_rows_before_a_shared_file_are_others(folder):
    for name, rows in (("a-0", chats(30)), ("b-0", chats(29)), ("a-1", chats(40)), ("b-1", chats(40))):
        write(folder, f"{name}.jsonl", rows)
    Survey(Hub()).check(spec_of({name: {"dataset": f"{name}-*.jsonl", "split": "train[:29]"} for name in "ab"}))
    with pytest.raises(InputError, match=r"\(a-1\.jsonl\) and 'b' \(b-1\.jsonl\) .* both take row 1 of it"):
        Survey(Hub()).check(spec_of({name: {"dataset": f"{name}-*.jsonl", "split": "train[:31]"} for name in "ab"}))


def test_templates_make_no_other_rows_of_one_file(folder):
    write(folder, "rows.jsonl", [{"q": f"q{n}", "a": f"a{n}"} for n in range(30)])
    there = {"dataset": "rows.jsonl", "instruction": "{{q}}", "response": "{{a}}"}
    back = {"dataset": "rows.jsonl", "instruction": "{{a}}", "response": "{{q}}"}
    with pytest.raises(InputError, match="both take row 1 of it"):
        Survey(Hub()).check(spec_of({"there": there, "back": back}))
    Survey(Hub()).check(spec_of({"there": there | {"split": "train[:50%]"}, "back": back | {"split": "train[50%:]"}}))


class Refusing(Letters):
    """Has no end for rows that it encodes."""

    eos_token_id = None


@pytest.mark.parametrize("converses", [True, False])
def test_held_out_rows_are_encoded_for_every_base(folder, converses):
    write(folder, "rows.jsonl", chats(30) if converses else [{"prompt": f"q{n}", "completion": "a"} for n in range(30)])
    survey, spec = Survey(Hub()), spec_of({"mine": {"dataset": "rows.jsonl"}}, samples=0)
    survey.check(spec, Letters())
    other = spec.model_copy(update={"base": spec.base.model_copy(update={"model": "other"})})
    with pytest.raises(InputError, match=r"source 'mine': rows\.jsonl: row \d+: .* no end token"):
        survey.check(other, Refusing())


def test_rows_are_read_once_for_a_content(folder, monkeypatch):
    read, check_rows = [], mix.Draw.check_rows
    monkeypatch.setattr(mix.Draw, "check_rows", lambda draw: read.append(draw) or check_rows(draw))
    broken = [{"messages": [{"role": "narrator", "content": "x"}]}]
    for rows, expected in ((chats(30), 1), (chats(31), 2)):
        write(folder, "rows.jsonl", rows)
        for seed in range(2):
            Survey(Hub()).check(spec_of({"mine": {"dataset": "rows.jsonl"}}, seed=seed))
        assert len(read) == expected
    write(folder, "rows.jsonl", chats(31) + broken)
    for _ in range(2):
        with pytest.raises(InputError, match="unknown role 'narrator'"):
            Survey(Hub()).check(spec_of({"mine": {"dataset": "rows.jsonl"}}))
    assert len(read) == 4, "a refusal is not kept"


def test_conversations_need_a_template_that_takes_them(folder):
    write(folder, "rows.jsonl", chats(30))
    with pytest.raises(
        InputError, match=r"source 'mine': data\.template alpaca has one instruction .* write data\.template: chat"
    ):
        Survey(Hub()).check(spec_of({"mine": {"dataset": "rows.jsonl"}}, template="alpaca"))
    replayed = {"source": "mine", "share": 0.5, "control": "permuted"}
    with pytest.raises(InputError, match="needs solutions; source 'mine' is conversations"):
        Survey(Hub()).check(spec_of({"mine": {"dataset": "rows.jsonl"}}, mix={"micro/gsm8k": 1.0}, replay=replayed))
