"""Foreign text is shown on a terminal and never obeyed."""

import io
import os

import pytest
from rich.table import Table

from orchestrator.console.terminal import Terminal, only_json
from trials.printable import one_line, printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b]0;title\x07", r"\x1b]0;title\x07"),
        ("\x9b31m", r"\x9b31m"),
        ("a\u202eb\u2066c\u200f", r"a\u202eb\u2066c\u200f"),
        ("a\rb\x7f\x08", r"a\rb\x7f\x08"),
        ("a\udcffb\u2028\ufeff", r"a\udcffb\u2028\ufeff"),
        ("[/b] [bold]x[/bold] :boom:", "[/b] [bold]x[/bold] :boom:"),
        ("naïve 日本 \u05d0 👩\u200d🔬\n\t-", "naïve 日本 \u05d0 👩\u200d🔬\n\t-"),
    ],
)
def test_foreign_text_is_shown_as_text(text, shown):
    assert printable(text) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("http://me:hunter2@host:8265: no answer", "http://me:***@host:8265: no answer"),
        ("postgresql://me:a@b/c:d@host/db", "postgresql://me:***@host/db"),
        ("postgresql://h/db?sslPassword=hunter2&x=1", "postgresql://h/db?sslPassword=***&x=1"),
        ("http://host:8265/a and b", "http://host:8265/a and b"),
        ("https://tok3n@host:8265", "https://***@host:8265"),
        ("https://host/x?p%61ssword=hunter2&y", "https://host/x?p%61ssword=***&y"),
        ("https://host/?access_token=abcd&api_key=efgh", "https://host/?access_token=***&api_key=***"),
        ("AWS_SECRET_ACCESS_KEY=abcd RAY_AUTH_TOKEN='efgh'", "AWS_SECRET_ACCESS_KEY=*** RAY_AUTH_TOKEN='***'"),
        ("Authorization: Bearer abc.def.ghi; hf_abcdefghijkl", "Authorization: Bearer ***; hf_***"),
        ("password = hunter2", "password = ***"),
        ("eos_token=</s> and https://github.com/a/b@main", "eos_token=</s> and https://github.com/a/b@main"),
    ],
)
def test_password_is_hidden(text, shown):
    assert printable(text) == shown


def test_password_in_an_address_is_hidden(write, tmp_path, command):
    from tests.factories.configs import CONFIG

    address = "http://me:hunter2@127.0.0.1:9"
    done = command("submit", write(CONFIG), "--address", address, "--storage", tmp_path)
    assert done.returncode == 2
    assert "http://me:***@127.0.0.1:9" in done.stderr
    assert "hunter2" not in done.stdout + done.stderr


def test_one_line_holds_no_line_end():
    assert one_line("a\n\n b\x0b") == r"a b\x0b"


def test_no_string_is_obeyed():
    evil = "[/b]\x1b[31m\u202e"
    terminal = Terminal(file=io.StringIO(), width=200)
    table = Table(title=evil)
    table.add_column(evil)
    table.add_row(evil)
    terminal.print(evil)
    terminal.print(table)
    terminal.out(evil)
    found = terminal.file.getvalue()
    assert "\x1b" not in found and "\u202e" not in found
    assert found.count(r"[/b]\x1b[31m\u202e") == 5


def test_markup_in_a_path_is_no_traceback(tmp_path, command):
    done = command("status", tmp_path / "[/b]\x1b[31m")
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert r"[/b]\x1b[31m: there is no such folder" in done.stderr
    assert command("[/b]\x1b[31m").returncode == 2
    assert command("status", "a", "[/b]").returncode == 2


def test_only_json_reaches_standard_output(capfd):
    with only_json(True):
        os.write(1, b"lost the head node\n")
        print("warning")
    print("{}")
    said = capfd.readouterr()
    assert said.out == "{}\n"
    assert said.err == "lost the head node\nwarning\n"
