"""The training rows of a trial are nested, in the requested shares, and exclude held-out rows."""

import json
import subprocess
import sys
from collections import Counter

import pandas as pd
import pytest

from tests.factories.rows import ROWS, Letters, build, data, local_data
from trials import mix, template
from trials.data import decontamination
from trials.errors import InputError
from trials.hub.hub import Hub, builtin_sources
from trials.template import IGNORED


def test_smaller_mix_is_a_prefix_of_a_larger_one():
    assert build(samples=13) == build(samples=40)[:13]


def test_every_prefix_has_the_shares_to_within_one_row():
    shares = {"a": 0.5, "b": 0.3, "c": 0.2}
    order = mix.order_of_sources(shares, 500)
    for n in range(1, 501):
        counts = Counter(order[:n])
        assert all(abs(counts[name] - n * share) <= 1 for name, share in shares.items())


def test_no_source_moves_the_rows_of_another():
    mixed = [row for row in build(samples=40) if row.source == "micro/alpaca"]
    assert mixed == build(samples=30, mix={"micro/alpaca": 1.0})


def test_rows_follow_from_the_seed():
    assert build(seed=1) == build(seed=1) != build(seed=2)


def test_row_whose_prompt_fills_the_length_is_skipped():
    rows = build(samples=5, mix={"micro/alpaca": 1.0}, max_length=190)
    assert len(rows) == 5
    assert all(any(label != IGNORED for label in row.labels) and len(row.input_ids) <= 190 for row in rows)


def test_too_few_rows_and_unknown_names_are_refused():
    with pytest.raises(InputError, match="has 1968 usable rows"):
        build(samples=2_100, mix={"micro/alpaca": 1.0})
    with pytest.raises(InputError, match="did you mean 'micro/alpaca'"):
        build(mix={"micro/alpacca": 1.0})
    wrong = {"dataset": "micro/gsm8k", "config": "main", "instruction": "{{querstion}}", "response": "{{answer}}"}
    with pytest.raises(InputError, match="the columns are question, answer"):
        build(mix={"mine": 1.0}, sources={"mine": wrong})
    with pytest.raises(InputError, match="has no main/trian"):
        build(mix={"mine": 1.0}, sources={"mine": {**wrong, "split": "trian"}})


def test_order_of_the_mix_in_the_config_does_not_matter():
    one, other = {"micro/alpaca": 0.5, "micro/gsm8k": 0.5}, {"micro/gsm8k": 0.5, "micro/alpaca": 0.5}
    assert build(samples=5, mix=one) == build(samples=5, mix=other)


@pytest.fixture
def files(tmp_path, monkeypatch):
    """A working directory with rows in JSON lines and in Parquet."""

    monkeypatch.chdir(tmp_path)
    rows = [{"q": f"question {n}", "a": f"answer {n}" if n else None} for n in range(40)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    pd.DataFrame(rows[:25]).to_parquet(tmp_path / "part-0.parquet")
    pd.DataFrame(rows[25:]).to_parquet(tmp_path / "part-1.parquet")
    return tmp_path


def local(dataset: str, samples: int = 10, **fields) -> list[mix.Example]:
    source = {"dataset": dataset, "instruction": "{{q}}", "response": "{{a}}", **fields}
    source = {name: value for name, value in source.items() if value is not None}
    return build(samples=samples, mix={"mine": 1.0}, sources={"mine": source}, template="plain")


def test_local_files_are_sources_and_are_read_again_after_changes(files):
    assert local("rows.jsonl") == local("part-*.parquet") == local(str(files / "rows.jsonl"))
    before = local("rows.jsonl")
    (files / "rows.jsonl").write_text("".join(f'{{"q": "other {n}", "a": "{n}"}}\n' for n in range(40)))
    assert "other" in "".join(map(chr, local("rows.jsonl")[0].input_ids))
    assert local("rows.jsonl") != before
    with pytest.raises(InputError, match=r"needs 15"):
        local("rows.jsonl", samples=15, split="train[:10]")


def test_missing_value_is_an_empty_text(files):
    assert not any("None" in "".join(map(chr, row.input_ids)) for row in local("rows.jsonl", samples=35))


@pytest.mark.parametrize(
    ("dataset", "fields", "expected"),
    [
        ("nowhere.jsonl", {}, "no file nowhere.jsonl in "),
        ("rows.jsonl", {"split": "test"}, 'Unknown split "test"'),
        ("rows.jsonl", {"config": "main"}, "is a file, which has no config"),
        ("rows.jsonl", {"response": "{{answer}}"}, "rows.jsonl: row"),
        ("rows.jsonl", {"response": "{{a"}, "template: "),
        ("broken.jsonl", {}, "broken.jsonl: row 1: not JSON: cut short at column 5"),
    ],
)
def test_error_of_a_file_is_one_line(files, dataset, fields, expected):
    (files / "broken.jsonl").write_text('{"q":\n')
    with pytest.raises(InputError) as caught:
        local(dataset, **fields)
    assert expected in str(caught.value)
    assert "source 'mine'" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_single_file_of_a_data_set_is_read_alone(tmp_path):

    for name in "ab":
        path = tmp_path / "some" / "data" / "sample" / f"{name}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pd.DataFrame({"text": [f"{name} {n}" for n in range(5)]}).to_parquet(path)
    source = {"dataset": "some/data", "files": "sample/a.parquet", "text": "{{text}}"}
    rows = mix.build(data(samples=5, mix={"mine": 1.0}, sources={"mine": source}), Hub(tmp_path), Letters())
    assert {chr(row.input_ids[0]) for row in rows} == {"a"}


def test_held_out_rows_are_fixed_and_never_trained_on():
    held = mix.heldout(data(), Hub(), Letters())
    assert {name: len(rows) for name, rows in held.items()} == {"micro/alpaca": 32, "micro/gsm8k": 32}
    other = data(seed=5, samples=7, mix={"micro/alpaca": 0.1, "micro/gsm8k": 0.9})
    assert mix.heldout(other, Hub(), Letters()) == held
    everything = {tuple(row.input_ids) for row in build(samples=1_968, mix={"micro/alpaca": 1.0}, seed=3)}
    assert len(everything) == 1_968
    assert not everything & {tuple(row.input_ids) for row in held["micro/alpaca"]}
    replayed = build(samples=3_000, mix={"micro/gsm8k": 1.0}, replay={"source": "micro/alpaca", "share": 0.5})
    assert not {tuple(row.input_ids) for row in replayed} & {tuple(row.input_ids) for row in held["micro/gsm8k"]}


def test_copy_of_a_held_out_row_is_not_trained_on(files):
    rows = [{"q": f"question {n % 20}", "a": f"answer {n % 20}"} for n in range(40)]
    (files / "twice.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = {"dataset": "twice.jsonl", "instruction": "{{q}}", "response": "{{a}}"}
    mine = data(samples=30, mix={"mine": 1.0}, sources={"mine": source})
    held = {tuple(row.input_ids) for row in mix.heldout(mine, Hub(), Letters())["mine"]}
    assert len(held) >= 2
    assert not held & {tuple(row.input_ids) for row in mix.build(mine, Hub(), Letters())}


def test_small_source_holds_out_a_tenth_or_nothing():
    assert [mix.held_out(rows) for rows in (0, 19, 20, 100, 320, 10**6)] == [0, 0, 2, 10, 32, 32]


def test_built_in_sources_are_complete():
    assert {"alpaca", "alpaca-cleaned", "gsm8k", "metamath", "dolly", "fineweb-edu"} <= set(builtin_sources())


def test_unused_rows_are_counted_by_reason(folder):
    rows = [{"q": f"question {n}", "a": f"answer {n}"} for n in range(20)]
    rows += [{"q": f"no answer {n}", "a": answer} for answer in (None, float("nan"), "  ") for n in range(6)]
    rows += [{"q": f"{n}" + "x" * 300, "a": "b"} for n in range(10)] + [{"q": f"{n}", "a": "y" * 300} for n in range(10)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    everything = local_data("rows.jsonl", samples=58, max_length=100)
    draw = mix.draws(everything, Hub(), ["mine"])["mine"]
    used = list(draw.rows(template.Encoder(everything, Letters()), None))
    assert draw.counts.left_out.keys() == {"held out", "no response", "no room for a response in max_length 100"}
    assert len(used) + draw.counts.left_out.total() == len(rows)
    assert draw.counts.left_out["held out"] == 5
    assert draw.counts.left_out["no response"] >= 18 - 5
    assert draw.counts.cut == sum(len(row.input_ids) == 100 for row in used) >= 5
    with pytest.raises(InputError, match=r"needs 58 rows of 'mine'; it has \d+ usable rows of 58 \(.*no response"):
        mix.mixture(everything, Hub(), Letters())
    fewer = mix.mixture(local_data("rows.jsonl", samples=len(used), max_length=100), Hub(), Letters())
    assert fewer.drawn["mine"].cut == draw.counts.cut
    assert fewer.drawn["mine"].left_out.keys() <= draw.counts.left_out.keys()


def test_empty_row_is_not_a_copy_of_a_held_out_empty_row(folder):
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS + [{"q": "", "a": ""}] * 75))
    draw = mix.draws(local_data("rows.jsonl"), Hub(), ["mine"])["mine"]
    assert len(list(draw.rows(None, None))) + draw.counts.left_out.total() == 100
    assert draw.counts.left_out.keys() == {"held out", "no response"}


def test_imports_of_user_scripts_load_no_torch():
    code = (
        "import sys; from trials import mix; from trials.hub import Hub; from trials.template import Encoder; "
        "sys.exit(bool({'torch', 'transformers'} & {*sys.modules}))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_labels_lost_at_max_length_are_counted(folder):
    rows = [{"q": f"{n:02}", "a": "y" * 30} for n in range(10)] + [{"q": "x" * 60, "a": "lost"} for _ in range(9)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    short = local_data("rows.jsonl", samples=10, max_length=20)
    counts = mix.mixture(short, Hub(), Letters()).drawn["mine"]
    assert counts.cut == 10
    # "NN", a line break, 30 letters and the end are 34 tokens; 14 of them are beyond the length
    assert counts.cut_tokens == 10 * 14
    assert set(counts.left_out) <= {"no room for a response in max_length 20"}


def test_turns_of_a_conversation_are_held_out_and_screened_as_one_row(folder):
    test_document = " ".join(f"word{n}" for n in range(20))
    turns = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"},
        {"role": "user", "content": test_document},
    ]
    chats = [[{"role": "user", "content": f"q{n}"}, {"role": "assistant", "content": f"a{n}"}] for n in range(40)]
    (folder / "rows.jsonl").write_text("".join(json.dumps({"messages": one}) + "\n" for one in [*chats, turns]))
    mine = data(samples=30, mix={"mine": 1.0}, sources={"mine": {"dataset": "rows.jsonl"}}, template="plain")
    screen = decontamination.Screen(decontamination.of_texts({"task": [test_document]}), 0.5)
    draw = mix.draws(mine, Hub(), ["mine"])["mine"]
    used = list(draw.rows(template.Encoder(mine, Letters()), screen))
    assert draw.counts.left_out == {"held out": 4, "overlap with a test document": 1}
    assert draw.counts.places["overlap with a test document"] == ["rows.jsonl: row 41"]
    held = mix.heldout(mine, Hub(), Letters())["mine"]
    assert len(held) == 4
    assert not {tuple(row.input_ids) for row in held} & {tuple(row.input_ids) for row in used}
    assert all(any(label != IGNORED for label in row.labels) for row in held)
