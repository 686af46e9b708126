"""Jinja templates of tasks run in a sandbox, and each is compiled once.

lm-eval renders the templates of a task's YAML in an environment in which a template could reach any Python object, and thus run
code that nobody has trusted. In a sandbox it cannot; what it writes is the same.

The bounded sandbox of trials/data/sandbox.py would write other texts: it has fewer filters and methods, none of them lm-eval's,
and shows null as an empty text.
"""

from functools import cache

import lm_eval.utils
from jinja2 import BaseLoader, StrictUndefined
from jinja2.sandbox import SandboxedEnvironment


def install() -> None:
    """Replaces lm-eval's environment in this process."""
    if isinstance(lm_eval.utils.env, SandboxedEnvironment):
        return
    made = SandboxedEnvironment(loader=BaseLoader(), undefined=StrictUndefined, keep_trailing_newline=True)
    made.filters.update(lm_eval.utils.env.filters)
    # lm-eval compiles a template anew for every text: a third of the time of a small model's trial
    made.from_string = cache(made.from_string)  # type: ignore[assignment,method-assign]
    lm_eval.utils.env = made
