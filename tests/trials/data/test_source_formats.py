"""A source's format is recognised by its columns; where none or several fit, one line says what to write."""

import json

import pandas as pd
import pyarrow as pa
import pytest

from tests.factories.rows import Letters
from trials import mix
from trials.data.conversation import Conversation
from trials.data.source_formats import recognised
from trials.errors import InputError
from trials.hub.hub import Hub
from trials.spec import Data, Source

TURNS = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
SHAREGPT = [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]


def write(folder, row: dict, name: str = "rows.jsonl") -> Source:
    (folder / name).write_text(json.dumps(row) + "\n")
    return Source(dataset=name)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"messages": TURNS}, "messages, by its column messages (role, content)"),
        ({"messages": TURNS, "id": 1, "text": "x"}, "messages, by its column messages (role, content); not read: id, text"),
        (
            {"prompt": "Hi", "prompt_id": 3, "messages": TURNS},
            "messages, by its column messages (role, content); not read: prompt,",
        ),
        ({"conversations": SHAREGPT, "tools": "[]"}, "ShareGPT, by its columns conversations, tools (from, value)"),
        ({"conversations": TURNS}, "messages, by its column conversations (role, content)"),
        ({"messages": json.dumps(SHAREGPT)}, "ShareGPT, by its column messages (from, value)"),
        ({"prompt": "Hi", "completion": "Hello"}, "prompt/completion, by its columns prompt, completion"),
        ({"prompt": TURNS[:1], "completion": TURNS[1:]}, "prompt/completion of messages, by its columns prompt, completion"),
        (
            {"prompt": json.dumps(TURNS[:1]), "completion": "Hello"},
            "prompt/completion of messages, by its columns prompt, comp",
        ),
        ({"prompt": '{"role": "chef"}', "completion": "Hello"}, "prompt/completion, by its columns prompt, completion"),
        (
            {"instruction": "Hi", "input": "", "output": "Hello", "text": "x"},
            "Alpaca, by its columns instruction, output, input; ",
        ),
        (
            {"instruction": "Hi", "context": "", "response": "Hello"},
            "instruction/response, by its columns instruction, response, co",
        ),
        ({"Question": "Hi", "Answer": "Hello"}, "question/answer, by its columns Question, Answer"),
        ({"text": "Hello"}, "plain text, by its column text"),
    ],
)
def test_format_is_named_with_the_columns_that_show_it(folder, row, said):
    source = write(folder, row)
    found = recognised("mine", source, Hub().rows("mine", source))
    assert found is not None
    assert str(found).startswith(said)
    read = mix.draws(Data(samples=1, mix={"mine": 1.0}, sources={"mine": source}, template="chat"), Hub(), ["mine"])["mine"]
    parts = read._source[0]
    hello = parts.messages[-1]["content"] if isinstance(parts, Conversation) else parts[-1]
    assert hello == "Hello"


@pytest.mark.parametrize("answer", ['{"role": "chef"}', '[{"city": "Rome"}]', '{"role": "user", "content": "Hi"}'])
def test_answers_in_json_stay_texts(folder, answer):
    source = write(folder, {"prompt": "As JSON?", "completion": answer})
    data = Data(samples=1, mix={"mine": 1.0}, sources={"mine": source}, template="alpaca")
    assert mix.draws(data, Hub(), ["mine"])["mine"]._source[0] == ("As JSON?", "", answer)


def test_source_with_templates_is_as_before(folder):
    source = write(folder, {"messages": TURNS}).model_copy(update={"text": "{{messages[0].content}}"})
    assert recognised("mine", source, Hub().rows("mine", source)) is None


def test_system_column_comes_before_the_turns(folder):
    source = write(folder, {"system": "Be brief.", "conversations": SHAREGPT})
    with (folder / "rows.jsonl").open("a") as file:
        file.write(json.dumps({"system": None, "conversations": SHAREGPT}) + "\n")
    data = Data(samples=1, mix={"mine": 1.0}, sources={"mine": source}, template="chat")
    rows = mix.draws(data, Hub(), ["mine"])["mine"]._source
    assert [len(rows[number].messages) for number in (0, 1)] == [3, 2]
    assert rows[0].messages[0] == {"role": "system", "content": "Be brief."}


@pytest.mark.parametrize(
    ("row", "refusal"),
    [
        (
            {"a": "Hi", "b": "Hello"},
            'rows.jsonl: its columns (a, b) fit no known format (messages, .* such as instruction: "{{a}}"',
        ),
        ({"prompt": "x", "chosen": "y", "rejected": "z"}, "fit no known format"),
        ({"mesages": [{}]}, 'did you mean messages by mesages?; .* such as text: "{{mesages}}"'),
        ({"messages": 3, "n": 1}, "fit no known format"),
        (
            {"messages": TURNS, "prompt": "Hi", "completion": "Hello"},
            "fit messages (messages) and prompt/completion (prompt, completion); write the one that is meant in data.sources."
            'mine: messages: "{{messages}}", or instruction: "{{prompt}}", response: "{{completion}}"',
        ),
        ({"instruction": "x", "output": "y", "response": "z"}, "fit Alpaca (instruction, output) and instruction/response"),
        ({"messages": TURNS, "conversations": SHAREGPT}, "fit messages (messages) and ShareGPT (conversations)"),
    ],
)
def test_unknown_and_ambiguous_columns_are_one_line(folder, row, refusal):
    source = write(folder, row)
    with pytest.raises(InputError) as caught:
        recognised("mine", source, Hub().rows("mine", source))
    beginning, _, rest = refusal.partition(".*")
    assert beginning in str(caught.value)
    assert rest in str(caught.value)
    assert "\n" not in str(caught.value)


def test_every_file_format_gives_the_same_conversations(folder):
    rows = [{"messages": [TURNS[0], {"role": "assistant", "content": f"Größe {n} 🚀"}]} for n in range(12)]
    as_text = pd.DataFrame([{"messages": json.dumps(row["messages"])} for row in rows])
    table = pa.Table.from_pylist(rows)
    (folder / "a.jsonl").write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    (folder / "b.json").write_text(json.dumps({"data": rows}))
    as_text.to_csv(folder / "c.csv", index=False)
    as_text.to_csv(folder / "d.TSV", index=False, sep="\t")
    pd.DataFrame(rows).to_parquet(folder / "e.parquet")
    with pa.OSFile("f.arrow", "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    with pa.OSFile("g.arrow", "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)

    def built(name: str) -> list[mix.Example]:
        data = Data(samples=12, mix={"mine": 1.0}, sources={"mine": Source(dataset=name)}, template="plain")
        return mix.build(data, Hub(), Letters())

    assert built("a.jsonl") == built("b.json") == built("c.csv") == built("d.TSV") == built("e.parquet") == built("f.arrow")
    assert built("a.jsonl") == built("g.arrow")


def test_misspelt_key_names_its_first_row(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = [{"messages": TURNS}, {"messages": TURNS, "message_id": 3}, {"mesages": TURNS}]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = Source(dataset="rows.jsonl")
    found = recognised("mine", source, Hub().rows("mine", source))
    assert found.unread == ("message_id", "mesages (did you mean messages? first: rows.jsonl: row 3)")


def test_column_beside_the_one_that_is_read_is_no_mistake(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    source = write(tmp_path, {"messages": TURNS, "message": "x"})
    assert recognised("mine", source, Hub().rows("mine", source)).unread == ("message",)
