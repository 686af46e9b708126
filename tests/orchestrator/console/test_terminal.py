"""Foreign text is shown on a terminal and never obeyed."""

import io
import os

from rich.table import Table

from orchestrator.console.terminal import Terminal, only_json


def test_password_in_an_address_is_hidden(write, tmp_path, command):
    from tests.factories.configs import CONFIG

    address = "http://me:hunter2@127.0.0.1:9"
    done = command("submit", write(CONFIG), "--address", address, "--storage", tmp_path)
    assert done.returncode == 2
    assert "http://me:***@127.0.0.1:9" in done.stderr
    assert "hunter2" not in done.stdout + done.stderr


def test_no_print_obeys_a_string():
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
