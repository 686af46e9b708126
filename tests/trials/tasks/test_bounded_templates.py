"""A stranger's template is bounded in memory, time and text, and none runs in this process."""

import os
import resource
import signal
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor

import pandas as pd
import pytest

from trials.other_process import inherited
from trials.tasks import bounded_templates
from trials.tasks.bounded_templates import literal, render
from trials.tasks.template_environment import Unrenderable, environment

DOC = {"question": "How many?", "n": 10**9}
TIME, MEMORY, TEXT = "may compute 2 s", "may fill 1 GiB of memory", "may write 4,000,000 characters"


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("{{ 'a' * 10**12 }}", MEMORY),  # when it is compiled
        ("{{ question * n }}", MEMORY),
        ("{{ '%*d' % (n * 2, 1) }}", MEMORY),
        ("{{ ''.encode().ljust(n * 2) | length }}", MEMORY),
        # begins large: a slow machine needs more than 2 s to fill 1 GiB step by step
        (
            "{% set n = namespace(l=[question] * 50000000) %}{% for i in range(99) %}{% set n.l = n.l + n.l %}{% endfor %}",
            MEMORY,
        ),
        ("{% set l = [1] %}{% set _ = l.extend(l) %}", "SecurityError"),
        ("{{ ([[0] * 1000000] * 3000) | sum(start=[]) | length }}", f"{TIME}|{MEMORY}"),
        ("{{ 'a' * 5000000 }}", TEXT),
        ("{% for i in range(99999) %}{{ 'a' * 1000 }}{% endfor %}", TEXT),
        ("{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}", TIME),
        ("{{ 9**(9**9) }}", TIME),
        ("{{ ('a' * 40) | regex_replace('(a+)+b', '') }}", TIME),
        ("{{ ''.__class__.__mro__ }}", "SecurityError: access to attribute '__class__' of 'str' object is unsafe"),
        ("{{ lipsum(n=99999) }}", f"{TIME}|{TEXT}"),
        ("{% macro m(x) %}{{ m(x) }}{% endmacro %}{{ m(1) }}", "RecursionError"),
        ("{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}", "RecursionError"),
        ("{{ " + "-" * 100_000 + "1 }}", "RecursionError"),
    ],
)
def test_template_that_needs_too_much_is_refused_with_the_bound(template, reason):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(Unrenderable, match=reason) as refusal:
        render(template, DOC)
    assert len(str(refusal.value)) < 1_200
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # KiB
    assert render("{{ question }}", DOC) == "How many?"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("['x', 1, [null]]", "ValueError: malformed node"),
        ("[1", "SyntaxError"),
        ("[f'" + "{1}" * 300_000 + "']", TIME),
        ("(" * 300_000, "SyntaxError|RecursionError|MemoryError|ended with code"),
        ("[" + "1j," * 5 + "]", "TypeError: Object of type complex"),
        ("9" * 5_000, "SyntaxError: Exceeds the limit"),
    ],
)
def test_literal_that_cannot_be_read_within_the_bounds_is_refused(text, reason):
    with pytest.raises(Unrenderable, match=reason):
        literal(text)
    assert literal("['a', (1, 2.5), None, {'b': True}]") == ["a", [1, 2.5], None, {"b": True}]


@pytest.mark.parametrize(
    ("template", "row"),
    [
        (
            "{{ texts | join('|') }}\r\n{{ none }} {{ n }}\n",
            {"texts": ["\x00<&'", "ä\r\n"], "none": None, "n": 1.5},
        ),
        ("{{ a }}{{ b }}", {"a": "\ud83d", "b": "\ude00"}),
        (
            "{{ self }} {{ template }} {{ row }} {{ text }} {{ args }}",
            dict.fromkeys(("self", "template", "row", "text", "args"), 1),
        ),
        ("{{ range(200000) | length }} {{ day.strftime('%Y') }}", {"day": pd.Timestamp("2020-02-03")}),
        ("{{ data }} {{ data | length }}", {"data": b"\x00\xff"}),
    ],
)
def test_text_within_the_bounds_is_that_of_the_environment(template, row):
    assert render(template, row) == environment().from_string(template).render(row)


def test_text_that_is_drawn_is_the_same_at_every_attempt():
    drawn = render("{{ range(1000) | random }}", DOC)
    bounded_templates._process.end()
    assert render("{{ range(1000) | random }}", DOC) == drawn


class Unsendable:
    def __reduce__(self):
        raise OSError("no such image")


def test_row_that_cannot_be_sent_is_refused_and_the_process_goes_on():
    with pytest.raises(Unrenderable, match="cannot be sent to the process that renders it: OSError: no such image"):
        render("{{ n }}", {**DOC, "image": Unsendable()})
    assert render("{{ n }}", DOC) == "1000000000"


def test_row_that_does_not_fit_into_the_memory_is_refused():
    with pytest.raises(Unrenderable, match=MEMORY):
        render("{{ n }}", {"n": 1, "data": b"a" * 600_000_000})


def test_process_that_is_killed_is_started_again():
    assert render("{{ n }}", DOC) == "1000000000"
    process = bounded_templates._process._running[0]
    os.kill(process.pid, signal.SIGKILL)
    with pytest.raises(Unrenderable, match="ended with code -9"):
        render("{{ n }}", DOC)
    assert render("{{ n }}", DOC) == "1000000000"


def test_threads_get_each_their_own_text():
    with ThreadPoolExecutor(4) as pool:
        texts = list(pool.map(lambda number: render("{{ n }} of {{ question }}", {**DOC, "n": number}), range(200)))
    assert texts == [f"{number} of How many?" for number in range(200)]


def run(program: str, **settings) -> str:
    """What a program in another process prints to standard error."""
    start = "import os, signal; from trials.tasks.bounded_templates import _process, render;"
    arguments = [sys.executable, "-P", "-c", start + program]
    ended = subprocess.run(arguments, stderr=subprocess.PIPE, text=True, env=inherited(), timeout=60, check=False, **settings)
    return ended.stderr


def test_process_ends_with_the_one_that_started_it():
    told = run("render('{{ a }}', {'a': 1}); os.write(2, str(_process._running[0].pid).encode()); os.kill(os.getpid(), 9)")
    ended = subprocess.run(["tail", f"--pid={int(told)}", "-f", "/dev/null"], timeout=60, check=False)
    assert ended.returncode == 0


def test_fork_within_a_rendering_renders_by_a_process_of_its_own():
    program = """
import threading, time
long = "{% for i in range(9999) %}{% for j in range(999) %}{% endfor %}{% endfor %}"
threading.Thread(target=render, args=(long, {})).start()
time.sleep(0.5)
if os.fork() == 0:
    os.write(2, render("{{ a }}", {"a": "forked"}).encode())
    os._exit(0)
os.wait()
"""
    assert run(f"exec({program!r})").endswith("forked")


def test_blocked_signal_and_closed_standard_streams_leave_the_bounds():
    program = """
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGPROF])
try:
    render("{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}", {})
except Exception as error:
    told = render("{{ a }}", {"a": str(error)})
    with open(os.environ["TOLD"], "w") as file:
        file.write(told)
"""
    start = "import os, signal; from trials.tasks.bounded_templates import render; exec(os.environ['PROGRAM'])"
    with tempfile.NamedTemporaryFile("r") as file:
        shell = f'exec {sys.executable} -P -c "{start}" <&- >&- 2>&-'
        settings = {**inherited(), "PROGRAM": program, "TOLD": file.name}
        subprocess.run(["bash", "-c", shell], env=settings, timeout=60, check=True)
        assert file.read() == "a template may compute 2 s for a row, and it takes longer"


def test_ctrl_c_during_a_rendering_leaves_no_answer_for_the_next():
    program = """
import threading
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
render("{{ a }}", {"a": "started"})
threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
try:
    render("{% for i in range(9999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}first", {})
except KeyboardInterrupt:
    os.write(2, render("{{ a }}", {"a": "second"}).encode())
"""
    assert run(f"exec({program!r})") == "second"
