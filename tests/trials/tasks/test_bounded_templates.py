"""A stranger's template is bounded in memory, time and text, and none runs in this process."""

import os
import resource
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import lm_eval.utils
import pytest

from trials.other_process import command, inherited
from trials.tasks import bounded_templates, templates
from trials.tasks.template_environment import UnknownColumn, Unrenderable

DOC = {"question": "How many?", "n": 10**9}
TIME, MEMORY, TEXT = "may compute 2 s", "may fill 1 GiB of memory", "may write 4,000,000 characters"


@pytest.fixture(autouse=True)
def installed():
    templates.install()


def render(template, doc=DOC):
    return lm_eval.utils.apply_template(template, doc)


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("{{ 'a' * 10**12 }}", MEMORY),  # when it is compiled
        ("{{ question * n }}", MEMORY),
        ("{{ '%*d' % (n * 2, 1) }}", MEMORY),
        ("{{ ''.encode().ljust(n * 2) | length }}", MEMORY),
        ("{% set l = [1] %}{% for i in range(99) %}{% set _ = l.extend(l) %}{% endfor %}", MEMORY),
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
        render(template)
    assert len(str(refusal.value)) < 1_200
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # KiB
    assert render("{{ question }}") == "How many?"


def test_text_within_the_bounds_is_the_one_that_lm_eval_would_write():
    doc = {"texts": ["ä\ud800\r\n", "\x00<&'"], "none": None, "number": 1.5, "nested": {"a": [1, {"b": 2}]}}
    template = "{{ texts | join('|') }}\r\n{{ none }} {{ number }} {{ nested.a[1]['b'] }} {{ texts[0] | e }}\n"
    bounded = render(template, doc)
    templates.trust({"task": "any", "fewshot_config": {"doc_to_text": [template]}})
    assert bounded == render(template, doc) == "ä\ud800\r\n|\x00<&'\nNone 1.5 2 ä\ud800\r\n\n"


def test_templates_are_rendered_in_this_process_only_where_they_are_trusted(monkeypatch):
    monkeypatch.setattr(bounded_templates._process, "answer", lambda template, row: {"text": "elsewhere"})
    assert render("{{ question }} 1") == "elsewhere"
    assert render("no template") == "no template"
    templates.trust({"doc_to_text": "{{ question }} 2"})
    assert render("{{ question }} 2") == "How many? 2"


def test_unknown_column_of_a_strangers_template_is_named_with_the_columns():
    with pytest.raises(UnknownColumn, match="'queston' is undefined; did you mean 'question'\\? the columns are question, n"):
        render("{{ queston }}")


def test_process_that_is_killed_is_started_again():
    assert render("{{ n }}") == "1000000000"
    process = bounded_templates._process._running[0]
    os.kill(process.pid, signal.SIGKILL)
    with pytest.raises(Unrenderable, match="ended with code -9"):
        render("{{ n }}")
    assert render("{{ n }}") == "1000000000"


def test_ctrl_c_during_a_rendering_leaves_no_answer_for_the_next():
    timer = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        render("{% for i in range(9999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}first")
    timer.join()
    assert render("second {{ n }}") == "second 1000000000"


def test_threads_get_each_their_own_text():
    with ThreadPoolExecutor(4) as pool:
        texts = list(pool.map(lambda number: render("{{ n }} of {{ question }}", {**DOC, "n": number}), range(200)))
    assert texts == [f"{number} of How many?" for number in range(200)]


def test_process_ends_with_the_one_that_started_it():
    program = (
        "import lm_eval.utils; from trials.tasks import bounded_templates, templates; templates.install();"
        "lm_eval.utils.apply_template('{{ a }}', {'a': 1}); print(bounded_templates._process._running[0].pid, flush=True);"
        "import os; os.kill(os.getpid(), 9)"
    )
    arguments = [sys.executable, "-P", "-c", program]
    pid = int(subprocess.run(arguments, capture_output=True, text=True, env=inherited(), check=False).stdout)
    ended = subprocess.run(["tail", f"--pid={pid}", "-f", "/dev/null"], timeout=60, check=False)
    assert ended.returncode == 0


def test_limit_of_the_shell_is_kept():
    shell = f"ulimit -v 3000000 && exec {' '.join(command('trials.tasks.template_process', '0'))}"
    ended = subprocess.run(["bash", "-c", shell], stdin=subprocess.DEVNULL, env=inherited(), check=False)
    assert ended.returncode == 0
