"""The code that a task folder's YAML names: which of it is this program's own, and the import of the rest.

lm-eval imports a function as soon as it reads its text. Here the text stays text until a task is built.
"""

import importlib
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from trials.errors import InputError
from trials.explain import nearest
from trials.tasks import answers
from trials.tasks.task_yaml import Function

_SCORES: Mapping[str, Callable[..., Any]] = {
    f"trials.tasks.answers.{score.__name__}": score for score in (answers.exact, answers.contains, answers.numeric)
}


_PROGRAM = {"trials", "orchestrator", "analysis", "slimsweep"}
_imported: dict[Path, object] = {}
"""The task folders whose code this process has imported, with their content at that time. The last one is current."""
_before: tuple[frozenset[str], frozenset[str]] = (frozenset(), frozenset())
"""Names of modules, and Python's path, before the first of them."""


def begin(root: Path, content: object) -> None:
    """Drops what other task folders, or this one with other content, have imported, and their places in Python's path.

    The next import then reads the files of `root` as they are: a module of one folder is not taken for another's.
    """
    global _before
    if not _imported:
        _before = frozenset(sys.modules), frozenset(sys.path)
    elif next(reversed(_imported.items())) != (root, content):
        for name in [name for name, module in sys.modules.items() if name not in _before[0] and _of_a_folder(name, module)]:
            del sys.modules[name]
        sys.path[:] = [place for place in sys.path if place in _before[1] or not _within(Path(place))]
        importlib.invalidate_caches()
    _imported.pop(root, None)
    _imported[root] = content


def _of_a_folder(name: str, module: ModuleType) -> bool:
    # a package without __init__.py has no file
    place = Path(getattr(module, "__file__", None) or next(iter(getattr(module, "__path__", None) or ()), ""))
    # a task folder may hold this program, and an environment
    return _within(place) and name.partition(".")[0] not in _PROGRAM and "site-packages" not in place.parts


def _within(place: Path) -> bool:
    return any(place.is_relative_to(root) for root in _imported)


def shipped(function: Function) -> Callable[..., Any] | None:
    """The score of this program that the text names; None for the code of somebody else.

    A file of the folder that has the module's name goes first, as with lm-eval.
    """
    return _SCORES[function] if function in _SCORES and not function.file.exists() else None


def resolved(value: Any, imported: Callable[[Function], Any]) -> Any:
    """A copy of a task's config with its functions in place of their texts.

    `imported` returns the function of a text that is not of this program.
    """
    if isinstance(value, Function):
        found = shipped(value)
        return imported(value) if found is None else found
    if isinstance(value, dict):
        return {resolved(key, imported): resolved(inner, imported) for key, inner in value.items()}
    if isinstance(value, list | tuple | set):
        return type(value)(resolved(inner, imported) for inner in value)
    return value


def refused(function: Function) -> Any:
    """Raises InputError: the role does not trust the folder's code."""
    raise InputError(f"{function.place}: !function {function}: this code runs only with trust_code: true")


def import_from(root: Path, pinned: Callable[[Path], bool]) -> Callable[[Function], Any]:
    """Imports functions as lm-eval does. Raises InputError for a file that is not `pinned`, one of the folder `root`."""

    def imported(function: Function) -> Any:
        from lm_eval.tasks._yaml_loader import _import_func_in_yml

        if function.file.exists() and not pinned(function.file):
            raise InputError(
                f"{function.place}: !function {function}: {function.file} is no file of the task folder {root}, which alone is "
                "pinned and travels to a cluster; put it there"
            )
        try:
            return _import_func_in_yml(function, function.path.parent)
        except (AttributeError, ImportError) as error:
            if text := _missing(function):
                raise InputError(f"{function.place}: !function {function}: {text}") from error
            raise error.__cause__ or error from None  # the module itself fails: lm-eval words that as a missing function

    return imported


def _missing(function: Function) -> str | None:
    """A sentence for a module that does not exist, or has no such function; None for a module that cannot be imported."""
    module, _, name = function.rpartition(".")
    known: ModuleType | None
    if not function.file.exists():
        try:
            known = importlib.import_module(module)
        except ImportError as error:
            return f"there is no file {function.file}, and Python finds no module {error.name or module}"
    else:
        known = sys.modules.get(str(function.file.resolve().with_suffix("")))
    if known is None or hasattr(known, name):
        return None
    own = [one for one, value in vars(known).items() if callable(value) and getattr(value, "__module__", "") == known.__name__]
    near = nearest(name, own)
    hint = f" did you mean {near!r}?" if near else ""
    return f"{function.file} has no function {name!r};{hint} it has {', '.join(own) or 'none'}"
