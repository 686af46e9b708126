"""The process that renders templates: its answers, and the limits that it gives itself."""

import json
import pickle
import subprocess
from multiprocessing import Pipe

import pytest

from trials.other_process import command, inherited
from trials.tasks.template_process import ERROR, NO_ROOM, TEXT


@pytest.fixture
def started():
    here, there = Pipe()
    with there, here:
        arguments = command("trials.tasks.template_process", str(there.fileno()))
        process = subprocess.Popen(arguments, env=inherited(), pass_fds=[there.fileno()])
        there.close()
        yield process, here
    process.wait()


def ask(connection, text, row):
    connection.send_bytes(pickle.dumps((text, row)))
    return connection.recv_bytes()


def test_answers_are_texts_and_errors(started):
    _, connection = started
    assert ask(connection, "{{ a }}", {"a": "ä\ud800"}) == TEXT + "ä\ud800".encode("utf-8", "surrogatepass")
    assert ask(connection, "(1, 'a')", None) == TEXT + b'[1, "a"]'
    answer = ask(connection, "{{ a }}", {})
    assert (answer[:1], json.loads(answer[1:])[0]) == (ERROR, "UnknownColumn")


def test_process_ends_with_the_connection(started):
    process, connection = started
    ask(connection, "{{ a }}", {"a": 1})
    connection.close()
    assert process.wait() == 0


def test_request_that_fills_the_memory_ends_the_process_with_its_code(started):
    process, connection = started
    with pytest.raises((EOFError, ConnectionResetError)):
        ask(connection, "{{ 'a' * 10**12 }}", {})
    assert process.wait() == NO_ROOM


def test_limits_of_the_process_are_its_own_or_the_shells():
    shell = f"ulimit -v 3000000 -c 5 && exec {' '.join(command('trials.tasks.template_process', '0'))}"
    ended = subprocess.run(["bash", "-c", shell], stdin=subprocess.DEVNULL, env=inherited(), check=False)
    assert ended.returncode == 0  # a limit above the shell's would be refused
