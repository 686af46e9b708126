"""The configs that come with the program: quickstart, presets of models, ablations, cluster files."""

from contextlib import suppress
from pathlib import Path

from trials.ledger.storage import local

_PACKAGE = Path(__file__).resolve().parents[1]
# a wheel has them in the package; a checkout has them beside it
FOLDER = _PACKAGE / "configs" if (_PACKAGE / "configs").is_dir() else _PACKAGE.parent / "configs"


def find(text: str, name: str = "") -> Path:
    """The path; `configs/...` is the program's own file where the working folder has none, with a wheel as in a checkout.

    Expands `~` and `$VARIABLE`. Raises InputError, which begins with `name`, like `local`.
    """
    path = local(text, name)
    if path.parts[:1] == ("configs",):
        own = FOLDER.joinpath(*path.parts[1:])
        with suppress(OSError):  # a name that no file can have: whoever opens it reports it
            return own if own.exists() and not path.exists() else path
    return path
