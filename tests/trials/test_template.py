"""A row's prompt, tokens and labels are those of its template."""

import json
import os
import warnings
from pathlib import Path

import pytest

from tests.factories.rows import LINES, Letters, build, data, local_data
from trials import mix, template
from trials.errors import InputError
from trials.hub.hub import TASK_FOLDERS, Hub
from trials.template import IGNORED


def test_response_keeps_only_its_indentation(folder):
    rows = [{"q": f" {n} ", "a": f"\n\n    return {n}\n"} for n in range(12)]
    (folder / "code.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    texts = {"".join(map(chr, row.input_ids[:-1])) for row in mix.build(local_data("code.jsonl"), Hub(), Letters())}
    assert texts <= {f"{n}\n    return {n}" for n in range(12)}


class Ending(Letters):
    """Appends the end token to every text."""

    def __call__(self, text, add_special_tokens=True):
        return {"input_ids": [*map(ord, text), *([0] if add_special_tokens else [])]}


def test_row_ends_with_exactly_one_end_token(folder):
    (folder / "rows.jsonl").write_bytes(LINES)
    rows = mix.build(local_data("rows.jsonl"), Hub(), Ending())
    assert all(row.input_ids.count(0) == 1 and row.input_ids[-1] == 0 for row in rows)
    assert rows == mix.build(local_data("rows.jsonl"), Hub(), Letters())


def test_tokenizer_without_an_end_token_is_refused(folder):
    (folder / "rows.jsonl").write_bytes(LINES)
    endless = Letters()
    endless.eos_token_id = None
    with pytest.raises(InputError, match="has no end token"):
        mix.build(local_data("rows.jsonl"), Hub(), endless)


MIRROR = Path(os.environ.get("HUB_MIRROR", Path(__file__).parents[3] / "shared" / "hub"))


CHAT = (
    "{{ bos_token }}{% for one in messages %}{{ one.role }}: {{ one.content }}{{ eos_token }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)


def test_labels_cover_response_and_end_or_everything():
    response = build(samples=1, mix={"micro/gsm8k": 1.0})[0]
    seen = "".join(chr(label) for label in response.labels if label > 0)
    assert "####" in seen
    assert "Instruction" not in seen
    assert response.labels[-1] == Letters.eos_token_id
    everything = build(samples=1, mix={"micro/gsm8k": 1.0}, loss_on="everything")[0]
    assert everything.labels == everything.input_ids == response.input_ids


def test_alpaca_prompt_is_stanfords():
    assert template.alpaca("Do it.", "").endswith("### Instruction:\nDo it.\n\n### Response:\n")
    assert "### Input:\nthis\n\n### Response:\n" in template.alpaca("Do it.", "this")


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


def test_chat_follows_the_tokenizers_template_with_labels_on_the_answer(micro):
    row = mix.build(data(samples=1, mix={"micro/gsm8k": 1.0}, template="chat"), Hub(), micro)[0]
    text = micro.decode(row.input_ids)
    assert text.startswith(f"{micro.bos_token or ''}user: ")
    assert row.input_ids.count(micro.eos_token_id) == 2, "as the template has it, and no end of our own"
    prompt, _, answer = text.partition("assistant: ")
    assert prompt
    assert learnt(micro, row).strip() == answer.strip()
    everything = mix.build(data(samples=1, mix={"micro/gsm8k": 1.0}, template="chat", loss_on="everything"), Hub(), micro)[0]
    assert everything.labels == everything.input_ids == row.input_ids


def test_chat_of_a_real_instruct_model_has_exact_labels():
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


def test_missing_or_inconsistent_chat_template_is_refused(micro):
    chat = data(samples=1, template="chat")
    micro.chat_template = None
    with pytest.raises(InputError, match=r"micro has no chat template; use alpaca or plain, or the instruct model"):
        mix.build(chat, Hub(), micro)
    micro.chat_template = "{% if not add_generation_prompt %}done {% endif %}" + CHAT
    with pytest.raises(InputError, match="differently from one that awaits its answer"):
        mix.build(chat, Hub(), micro)
    assert mix.build(chat.model_copy(update={"loss_on": "everything"}), Hub(), micro), "no response needs to be separated"
    micro.chat_template = "{{ raise_exception('only systems speak') }}"
    with pytest.raises(InputError, match="only systems speak"):
        mix.build(chat, Hub(), micro)


@pytest.mark.parametrize("converses", [False, True])
def test_refusal_of_a_chat_template_names_source_and_row(folder, micro, converses):
    turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    (folder / "rows.jsonl").write_text(json.dumps({"q": "Hi", "a": "Hello", "messages": turns}) + "\n")
    templates = {"messages": "{{messages}}"} if converses else {"instruction": "{{q}}", "response": "{{a}}"}
    source = {"dataset": "rows.jsonl", **templates}
    micro.chat_template = "{{ raise_exception('only systems speak') }}"
    with pytest.raises(InputError, match=r"^source 'mine': rows\.jsonl: row 1: .*only systems speak"):
        mix.build(data(samples=1, mix={"mine": 1.0}, sources={"mine": source}, template="chat"), Hub(), micro)


def test_plain_row_has_no_added_text():
    row = build(samples=1, mix={"micro/gsm8k": 1.0}, template="plain")[0]
    text = "".join(map(chr, row.input_ids[:-1]))
    prompt = "".join(chr(i) for i, label in zip(row.input_ids, row.labels, strict=True) if label == IGNORED)
    assert prompt.endswith("?\n")
    assert "Instruction" not in text
    assert template.plain("Do it.", "this") == "Do it.\nthis\n"


class Marked(Letters):
    """Puts a special token before each text."""

    def __call__(self, text, add_special_tokens=True):
        return {"input_ids": [1, *map(ord, text)]}


class Pairs(Letters):
    """One token for two letters, so that a token may span prompt and response."""

    def __call__(self, text, add_special_tokens=True):
        return {"input_ids": [ord(text[i]) * 1000 + sum(map(ord, text[i + 1 : i + 2])) for i in range(0, len(text), 2)]}


def test_labels_begin_where_an_answer_would_begin():
    asked = data(mix={"micro/gsm8k": 1.0}, template="plain")
    assert template.Encoder(asked, Marked())(("a", "", "b"))[0] == [1, ord("a"), ord("\n"), ord("b"), 0]
    ids, labels = template.Encoder(asked, Pairs())(("ab", "", "cd"))
    prompt = Pairs()("ab\n")["input_ids"]
    assert ids[: len(prompt)] == prompt
    assert labels == [IGNORED] * len(prompt) + ids[len(prompt) :]


def test_plain_text_has_labels_everywhere_and_an_end(folder):
    (folder / "rows.jsonl").write_bytes(LINES)
    source = {"dataset": "rows.jsonl", "text": "{{q}}"}
    row = build(samples=10, mix={"mine": 1.0}, sources={"mine": source}, template="plain")[0]
    assert row.labels == row.input_ids
    assert "".join(map(chr, row.input_ids[:-1])).startswith("question ")
    assert row.input_ids[-1] == Letters.eos_token_id
