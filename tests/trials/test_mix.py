"""The training rows of a trial: nested, in their shares, as the tokens that the loss should see."""

import json
import os
import warnings
from collections import Counter
from pathlib import Path

import pytest

from tests.factories.rows import Letters, data
from trials import mix, template
from trials.errors import InputError
from trials.hub.hub import TASK_FOLDERS, Hub, builtin_sources
from trials.spec import TrialSpec
from trials.template import IGNORED

MIRROR = Path(os.environ.get("HUB_MIRROR", Path(__file__).parents[3] / "shared" / "hub"))
CHAT = (
    "{{ bos_token }}{% for one in messages %}{{ one.role }}: {{ one.content }}{{ eos_token }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)


def build(**values) -> list[mix.Example]:
    return mix.build(data(**values), Hub(), Letters())


def test_a_smaller_mix_is_a_prefix_of_a_larger_one():
    assert build(samples=13) == build(samples=40)[:13]


def test_every_prefix_has_the_shares_as_nearly_as_whole_rows_can():
    shares = {"a": 0.5, "b": 0.3, "c": 0.2}
    order = mix.order_of_sources(shares, 500)
    for n in range(1, 501):
        counts = Counter(order[:n])
        assert all(abs(counts[name] - n * share) <= 1 for name, share in shares.items())


def test_no_source_moves_the_rows_of_another():
    mixed = [row for row in build(samples=40) if row.source == "micro/alpaca"]
    assert mixed == build(samples=30, mix={"micro/alpaca": 1.0})


def test_another_seed_gives_other_rows_and_the_same_seed_the_same():
    assert build(seed=1) == build(seed=1) != build(seed=2)


def test_the_loss_sees_the_response_and_the_end_or_everything():
    response = build(samples=1, mix={"micro/gsm8k": 1.0})[0]
    seen = "".join(chr(label) for label in response.labels if label > 0)
    assert "####" in seen
    assert "Instruction" not in seen
    assert response.labels[-1] == Letters.eos_token_id
    everything = build(samples=1, mix={"micro/gsm8k": 1.0}, loss_on="everything")[0]
    assert everything.labels == everything.input_ids == response.input_ids


def test_a_row_whose_prompt_fills_the_length_is_passed_over():
    rows = build(samples=5, mix={"micro/alpaca": 1.0}, max_length=190)
    assert len(rows) == 5
    assert all(any(label != IGNORED for label in row.labels) and len(row.input_ids) <= 190 for row in rows)


def test_the_prompt_is_alpacas():
    assert template.alpaca("Do it.", "").endswith("### Instruction:\nDo it.\n\n### Response:\n")
    assert "### Input:\nthis\n\n### Response:\n" in template.alpaca("Do it.", "this")


def test_too_few_rows_and_unknown_sources_and_columns_are_one_clear_line():
    with pytest.raises(InputError, match="has 1968 usable rows"):
        build(samples=2_100, mix={"micro/alpaca": 1.0})
    with pytest.raises(InputError, match="did you mean 'micro/alpaca'"):
        build(mix={"micro/alpacca": 1.0})
    wrong = {"dataset": "micro/gsm8k", "config": "main", "instruction": "{{querstion}}", "response": "{{answer}}"}
    with pytest.raises(InputError, match="the columns are question, answer"):
        build(mix={"mine": 1.0}, sources={"mine": wrong})
    with pytest.raises(InputError, match="has no main/trian"):
        build(mix={"mine": 1.0}, sources={"mine": {**wrong, "split": "trian"}})


def test_the_order_in_which_the_mix_is_written_does_not_matter_as_it_does_not_for_the_key():
    one, other = {"micro/alpaca": 0.5, "micro/gsm8k": 0.5}, {"micro/gsm8k": 0.5, "micro/alpaca": 0.5}
    assert build(samples=5, mix=one) == build(samples=5, mix=other)


def tokenizer_of(folder: Path | str, chat_template: str | None = None):
    from transformers import AutoTokenizer

    found = AutoTokenizer.from_pretrained(folder)
    if chat_template:
        found.chat_template = chat_template
    return found


@pytest.fixture
def micro():
    return tokenizer_of(TASK_FOLDERS[0].parent / "hub" / "micro", CHAT)


def learnt(tokenizer, row: mix.Example) -> str:
    return tokenizer.decode([label for label in row.labels if label != IGNORED])


def test_a_chat_is_what_the_tokenizers_template_makes_of_it_and_the_answer_alone_is_learnt(micro):
    row = mix.build(data(samples=1, mix={"micro/gsm8k": 1.0}, template="chat"), Hub(), micro)[0]
    text = micro.decode(row.input_ids)
    assert text.startswith(f"{micro.bos_token or ''}user: ")
    assert row.input_ids.count(micro.eos_token_id) == 2, "as the template has it, and no end of our own"
    prompt, _, answer = text.partition("assistant: ")
    assert prompt
    assert learnt(micro, row).strip() == answer.strip()
    everything = mix.build(data(samples=1, mix={"micro/gsm8k": 1.0}, template="chat", loss_on="everything"), Hub(), micro)[0]
    assert everything.labels == everything.input_ids == row.input_ids


def test_the_chat_of_a_real_instruct_model_has_one_beginning_and_an_exact_mask():
    folder = MIRROR / "HuggingFaceTB" / "SmolLM2-135M-Instruct"
    if not folder.is_dir():
        warnings.warn(
            f"no SmolLM2-135M-Instruct at {folder} (HUB_MIRROR names the mirror): its chat is not tried", stacklevel=1
        )
        pytest.skip(f"no {folder}")
    tokenizer = tokenizer_of(folder)
    for row in mix.build(data(samples=50, template="chat"), Hub(), tokenizer):
        prompt = tokenizer.decode([i for i, label in zip(row.input_ids, row.labels, strict=True) if label == IGNORED])
        assert prompt.endswith("<|im_end|>\n<|im_start|>assistant\n")
        assert prompt.count("<|im_start|>assistant") == 1
        assert prompt.startswith("<|im_start|>system\n")
        assert learnt(tokenizer, row).endswith("<|im_end|>\n")
        assert "<|im_start|>" not in learnt(tokenizer, row)


def test_a_base_without_a_chat_template_or_with_one_that_hides_the_prompt_is_one_clear_line(micro):
    chat = data(samples=1, template="chat")
    micro.chat_template = None
    with pytest.raises(InputError, match=r"micro has no chat template; use alpaca or plain, or the instruct model"):
        mix.build(chat, Hub(), micro)
    micro.chat_template = "{% if not add_generation_prompt %}done {% endif %}" + CHAT
    with pytest.raises(InputError, match="differently from one that awaits its answer"):
        mix.build(chat, Hub(), micro)
    micro.chat_template = "{{ raise_exception('only systems speak') }}"
    with pytest.raises(InputError, match="only systems speak"):
        mix.build(chat, Hub(), micro)


def test_plain_is_the_row_and_nothing_else():
    row = build(samples=1, mix={"micro/gsm8k": 1.0}, template="plain")[0]
    text = "".join(map(chr, row.input_ids[:-1]))
    prompt = "".join(chr(i) for i, label in zip(row.input_ids, row.labels, strict=True) if label == IGNORED)
    assert prompt.endswith("?\n")
    assert "Instruction" not in text
    assert template.plain("Do it.", "this") == "Do it.\nthis\n"


class Marked(Letters):
    """As tokenizers that put a mark before each text they are given."""

    def __call__(self, text, add_special_tokens=True):
        return {"input_ids": [1, *map(ord, text)]}


class Pairs(Letters):
    """A token for two letters, so one may span the border between prompt and response."""

    def __call__(self, text, add_special_tokens=True):
        return {"input_ids": [ord(text[i]) * 1000 + sum(map(ord, text[i + 1 : i + 2])) for i in range(0, len(text), 2)]}


def test_what_is_learnt_begins_where_an_answer_to_the_prompt_would():
    asked = data(mix={"micro/gsm8k": 1.0}, template="plain")
    assert template.Encoder(asked, Marked())(("a", "", "b"))[0] == [1, ord("a"), ord("\n"), ord("b"), 0]
    ids, labels = template.Encoder(asked, Pairs())(("ab", "", "cd"))
    prompt = Pairs()("ab\n")["input_ids"]
    assert ids[: len(prompt)] == prompt
    assert labels == [IGNORED] * len(prompt) + ids[len(prompt) :]


@pytest.fixture
def files(tmp_path, monkeypatch):
    """A working directory with rows in JSON lines and in Parquet."""
    import pandas as pd

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


def test_a_local_file_or_a_pattern_of_files_is_a_source_and_is_read_again_when_it_changes(files):
    assert local("rows.jsonl") == local("part-*.parquet") == local(str(files / "rows.jsonl"))
    before = local("rows.jsonl")
    (files / "rows.jsonl").write_text("".join(f'{{"q": "other {n}", "a": "{n}"}}\n' for n in range(40)))
    assert "other" in "".join(map(chr, local("rows.jsonl")[0].input_ids))
    assert local("rows.jsonl") != before
    with pytest.raises(InputError, match=r"needs 15"):
        local("rows.jsonl", samples=15, split="train[:10]")


def test_a_missing_value_is_an_empty_text(files):
    assert not any("None" in "".join(map(chr, row.input_ids)) for row in local("rows.jsonl", samples=35))


@pytest.mark.parametrize(
    ("dataset", "fields", "expected"),
    [
        ("nowhere.jsonl", {}, "no file nowhere.jsonl in "),
        ("rows.jsonl", {"split": "test"}, 'Unknown split "test"'),
        ("rows.jsonl", {"config": "main"}, "is a file, which has no config"),
        ("rows.jsonl", {"response": "{{answer}}"}, "rows.jsonl: row"),
        ("rows.jsonl", {"response": "{{a"}, "template: "),
        ("broken.jsonl", {}, "broken.jsonl: row 1: not JSON: Expecting value"),
    ],
)
def test_what_is_wrong_with_a_file_is_one_clear_line(files, dataset, fields, expected):
    (files / "broken.jsonl").write_text('{"q":\n')
    with pytest.raises(InputError) as caught:
        local(dataset, **fields)
    assert expected in str(caught.value)
    assert "source 'mine'" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_one_file_of_a_large_data_set_is_read_alone(tmp_path):
    import pandas as pd

    for name in "ab":
        path = tmp_path / "some" / "data" / "sample" / f"{name}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pd.DataFrame({"text": [f"{name} {n}" for n in range(5)]}).to_parquet(path)
    source = {"dataset": "some/data", "files": "sample/a.parquet", "text": "{{text}}"}
    rows = mix.build(data(samples=5, mix={"mine": 1.0}, sources={"mine": source}), Hub(tmp_path), Letters())
    assert {chr(row.input_ids[0]) for row in rows} == {"a"}


def test_of_plain_text_everything_is_learnt_and_it_ends(files):
    row = local("rows.jsonl", instruction=None, response=None, text="{{q}}")[0]
    assert row.labels == row.input_ids
    assert "".join(map(chr, row.input_ids[:-1])).startswith("question ")
    assert row.input_ids[-1] == Letters.eos_token_id


def test_held_out_rows_are_the_same_for_every_seed_size_and_share_and_never_trained_on():
    held = mix.heldout(data(), Hub(), Letters())
    assert {name: len(rows) for name, rows in held.items()} == {"micro/alpaca": 32, "micro/gsm8k": 32}
    other = data(seed=5, samples=7, mix={"micro/alpaca": 0.1, "micro/gsm8k": 0.9})
    assert mix.heldout(other, Hub(), Letters()) == held
    everything = {tuple(row.input_ids) for row in build(samples=1_968, mix={"micro/alpaca": 1.0}, seed=3)}
    assert len(everything) == 1_968
    assert not everything & {tuple(row.input_ids) for row in held["micro/alpaca"]}
    replayed = build(samples=3_000, mix={"micro/gsm8k": 1.0}, replay={"source": "micro/alpaca", "share": 0.5})
    assert not {tuple(row.input_ids) for row in replayed} & {tuple(row.input_ids) for row in held["micro/gsm8k"]}


def test_a_row_that_stands_twice_is_not_trained_on_where_it_is_held_out(files):
    rows = [{"q": f"question {n % 20}", "a": f"answer {n % 20}"} for n in range(40)]
    (files / "twice.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = {"dataset": "twice.jsonl", "instruction": "{{q}}", "response": "{{a}}"}
    mine = data(samples=30, mix={"mine": 1.0}, sources={"mine": source})
    held = {tuple(row.input_ids) for row in mix.heldout(mine, Hub(), Letters())["mine"]}
    assert len(held) >= 2
    assert not held & {tuple(row.input_ids) for row in mix.build(mine, Hub(), Letters())}


def test_a_small_source_holds_out_a_tenth_or_nothing():
    assert [mix.held_out(rows) for rows in (0, 19, 20, 100, 320, 10**6)] == [0, 0, 2, 10, 32, 32]


def test_the_built_in_sources_are_whole():
    assert {"alpaca", "alpaca-cleaned", "gsm8k", "metamath", "dolly", "fineweb-edu"} <= set(builtin_sources())


def replayed(control: str, seed: int = 0) -> list[list[str]]:
    """Question and solution of the replayed rows."""
    found = build(
        mix={"micro/alpaca": 1.0},
        replay={"source": "micro/gsm8k", "share": 0.5, "control": control},
        template="plain",
        seed=seed,
    )
    texts = ["".join(map(chr, row.input_ids[:-1])) for row in found if row.source == "micro/gsm8k"]
    return [text.split("\n", 1) for text in texts]


def test_a_control_changes_the_replayed_solutions_and_nothing_else():
    true, mixed = replayed("true"), {}
    for control in ("permuted", "prose"):
        other = replayed(control)
        assert [question for question, _ in other] == [question for question, _ in true]
        assert all(one != two for (_, one), (_, two) in zip(other, true, strict=True))
        mixed[control] = [
            row
            for row in build(mix={"micro/alpaca": 1.0}, replay={"source": "micro/gsm8k", "share": 0.5, "control": control})
            if row.source == "micro/alpaca"
        ]
    assert mixed["permuted"] == mixed["prose"]


def test_permuted_solutions_keep_the_format_and_prose_keeps_the_result():
    true = dict(replayed("true"))
    for question, solution in replayed("permuted"):
        assert solution.splitlines()[-1].startswith("#### ") and solution not in true[question]
    for question, solution in replayed("prose"):
        result = true[question].splitlines()[-1].removeprefix("#### ")
        assert solution.endswith(f"The answer is {result}.") and "####" not in solution and "<<" not in solution


def test_a_control_that_a_source_cannot_have_is_one_line():
    with pytest.raises(InputError, match="source 'micro/alpaca' has a response without a line '#### RESULT'"):
        build(mix={"micro/gsm8k": 1.0}, replay={"source": "micro/alpaca", "share": 0.5, "control": "prose"})
    with pytest.raises(ValueError, match="the text of source `self` has none"):
        data(replay={"source": "self", "share": 0.5, "control": "prose"})


def test_the_key_knows_the_control_and_no_key_of_before_changes():
    spec = {"base": {"model": "micro", "dtype": "float32"}, "eval": {"math": {"task": "t", "metric": "acc"}}}
    replay = {"source": "micro/gsm8k", "share": 0.1}
    keys = {
        control: TrialSpec.model_validate(
            {**spec, "data": {"samples": 8, "mix": {"micro/alpaca": 1.0}, "replay": {**replay, "control": control}}}
        )
        for control in ("true", "permuted", "prose")
    }
    assert len({one.key for one in keys.values()}) == 3
    assert keys["true"].canonical()["data"]["replay"] == replay
