"""`init` writes a config to begin with, and overwrites nothing."""

import json
import re
from collections import Counter
from pathlib import Path

import pytest

from orchestrator.config import shipped
from orchestrator.config.load import load
from orchestrator.init import write
from trials.errors import InputError
from trials.evaluation.racing import doc_hash
from trials.ledger.outcomes import SEARCH
from trials.tasks.splits import half


def test_written_config_is_complete(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert command("init").stdout == "quickstart.yaml\nedit it, then: slimsweep plan quickstart.yaml\n"
    assert load(Path("quickstart.yaml")).name == "quickstart"


def test_file_is_the_shipped_config(tmp_path):
    write("paper", tmp_path / "mine.yaml")
    assert (tmp_path / "mine.yaml").read_text() == (shipped.FOLDER / "paper.yaml").read_text()


def test_chat_brings_its_conversations_and_its_task(tmp_path):
    written = write("chat", tmp_path / "mine.yaml")
    assert {path.relative_to(tmp_path).as_posix() for path in written} == {
        *("mine.yaml", "conversations.jsonl", "tasks/places.yaml", "tasks/questions.jsonl", "tasks/metrics.py")
    }
    assert all((shipped.FOLDER / "chat" / path.relative_to(tmp_path)).read_text() == path.read_text() for path in written[1:])


def test_halves_of_the_example_task_have_the_sizes_that_the_tutorial_states():
    page = (Path(__file__).parents[2] / "docs" / "tutorial.md").read_text()
    stated = re.search(r"With (\d+) questions .* The search sees about half of them, (\d+) of the example's", page)
    rows = [json.loads(line) for line in (shipped.FOLDER / "chat" / "tasks" / "questions.jsonl").read_text().splitlines()]
    halves = Counter(half(row, doc_hash(row)) for row in rows)
    assert [int(number) for number in stated.groups()] == [len(rows), halves[SEARCH]]


def test_questions_of_the_example_task_are_answered_by_its_conversations():
    folder = shipped.FOLDER / "chat"
    turns = [[turn["content"] for turn in json.loads(line)["messages"]] for line in (folder / "conversations.jsonl").open()]
    taught = {one[0].removeprefix("How do I ").removesuffix("?"): one[-1] for one in turns}
    rows = [json.loads(line) for line in (folder / "tasks" / "questions.jsonl").open()]
    assert len({row["question"] for row in rows}) == len(rows)
    assert all(row["place"] in taught[row["question"].removeprefix("Say where this is done: ")] for row in rows)


def test_nothing_is_written_where_a_file_of_it_exists(tmp_path):
    (tmp_path / "conversations.jsonl").write_text("mine")
    with pytest.raises(InputError, match=r"conversations.jsonl: exists already"):
        write("chat", tmp_path / "mine.yaml")
    assert [path.name for path in tmp_path.iterdir()] == ["conversations.jsonl"]


@pytest.mark.parametrize("there", ["file", "folder", "link"])
def test_nothing_is_overwritten(tmp_path, there):
    path = tmp_path / "mine.yaml"
    if there == "file":
        path.write_text("mine")
    elif there == "folder":
        path.mkdir()
    else:
        path.symlink_to("nowhere")
    with pytest.raises(InputError, match="exists already"):
        write("quickstart", path)
    assert path.is_symlink() or path.is_dir() or path.read_text() == "mine"


def test_bad_input_is_exit_code_2(command, tmp_path):
    missing = command("init", "quickstart", tmp_path / "none" / "mine.yaml")
    assert (missing.returncode, missing.stderr) == (2, f"{tmp_path}/none/mine.yaml: No such file or directory\n")
    assert command("init", "papre").returncode == 2
