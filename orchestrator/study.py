"""Opens a sweep's Optuna study: sqlite beside the records, a journal on a shared file system, or PostgreSQL.

A study file that is not whole is set aside: what it held is in manifest.json and the ledger, from which a new one is filled.
"""

import hashlib
import os
import sqlite3
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import optuna
import sqlalchemy.exc
from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock

from orchestrator.config import SweepConfig
from orchestrator.remembered import Remembered
from trials.errors import InputError
from trials.storage import is_local, sqlite_url

_TRIES = 5  # of opening a server's database
_LOCKED = 60.0  # seconds to wait for another process that writes the file


def open_study(config: SweepConfig, folder: Path, notice: Callable[[str], None]) -> optuna.Study:
    """The study of the sweep in `folder`, made where there is none; call it in `opening`."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    kind = config.search.study
    if kind == "journal" and not is_local(folder):
        raise InputError(
            f"search.study: a journal needs a folder that all commands share, not {folder}; there several share postgresql://..."
        )
    place = study_folder(folder)
    if kind == "sqlite":
        storage: BaseStorage = _sqlite(place / "study.db", notice)
    elif kind == "journal":
        storage = _journal(place / "study.journal", notice)
    else:
        storage = _server(kind)
    study = optuna.create_study(
        study_name=config.name,
        storage=Remembered(storage) if isinstance(storage, RDBStorage) else storage,
        directions=[objective.direction for objective in config.search.objectives],
        load_if_exists=True,
    )
    names = [objective.metric for objective in config.search.objectives]
    if study.metric_names != names:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            study.set_metric_names(names)
    owner = study.user_attrs.get("folder")
    if owner is None:
        study.set_user_attr("folder", str(folder))
    elif kind not in ("sqlite", "journal") and owner != str(folder):
        raise InputError(
            f"search.study: {kind} has a study {config.name!r} of the sweep in {owner}; give this sweep another `name`"
        )
    return study


@contextmanager
def opening(config: SweepConfig, folder: Path) -> Iterator[None]:
    """Around all that is done to open the study: a database that cannot be had, read or written is one line, an InputError."""
    try:
        yield
    except (
        StorageInternalError,
        sqlalchemy.exc.OperationalError,
        sqlalchemy.exc.ProgrammingError,
        sqlite3.OperationalError,
    ) as error:
        kind = config.search.study
        cause: BaseException = error
        while cause.__cause__ is not None:  # what the database said is the innermost
            cause = cause.__cause__
        place = study_folder(folder) / "study.db" if kind == "sqlite" else kind
        raise InputError(f"search.study: {place}: {' '.join(str(cause).split())[:200]}") from error


def study_folder(folder: Path) -> Path:
    """Where the study's file lies: with the sweep, or, where that is no local folder, in the user's cache."""
    if is_local(folder):
        folder.mkdir(parents=True, exist_ok=True)
        return folder
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    place = cache / "slimsweep" / "studies" / hashlib.sha256(str(folder).encode()).hexdigest()[:16]
    place.mkdir(parents=True, exist_ok=True)
    return place


def _sqlite(path: Path, notice: Callable[[str], None]) -> RDBStorage:
    if path.exists() and (problem := _damage(path)):
        _set_aside(path, problem, notice)
    try:
        return RDBStorage(sqlite_url(path), engine_kwargs={"connect_args": {"timeout": _LOCKED}})
    except (sqlalchemy.exc.DatabaseError, RuntimeError) as error:
        if isinstance(error, sqlalchemy.exc.OperationalError):
            raise  # a full disk, a folder without write permission: nothing is wrong with the file
        _set_aside(path, str(error), notice)
        return RDBStorage(sqlite_url(path))


def _damage(path: Path) -> str | None:
    """What is wrong with a sqlite file; a journal that a killed process left beside it is played back first."""
    try:
        connection = sqlite3.connect(path, timeout=_LOCKED)
        try:
            found = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        finally:
            connection.close()
    except sqlite3.OperationalError:
        raise
    except sqlite3.DatabaseError as error:
        return str(error)
    return None if found == "ok" else str(found)


def _journal(path: Path, notice: Callable[[str], None]) -> JournalStorage:
    _end_last_line(path, notice)
    try:
        return JournalStorage(JournalFileBackend(str(path)))
    except (ValueError, KeyError, TypeError) as error:  # a line that is no JSON, or no log of Optuna's
        _set_aside(path, f"{type(error).__name__}: {error}", notice)
        return JournalStorage(JournalFileBackend(str(path)))


def _end_last_line(path: Path, notice: Callable[[str], None]) -> None:
    """Cuts off half a line that a killed process left: what is appended next would be glued to it."""
    if not path.exists():
        return
    lock = JournalFileSymlinkLock(str(path))
    lock.acquire()
    try:
        whole = path.read_bytes()
        end = whole.rfind(b"\n") + 1
        if end < len(whole):
            with path.open("r+b") as file:
                file.truncate(end)
            notice(f"{path}: its last line was cut off by a kill or a full disk, and is dropped")
    finally:
        lock.release()


def _server(url: str) -> RDBStorage:
    for _ in range(_TRIES - 1):
        try:
            return _connected(url)
        except (sqlalchemy.exc.IntegrityError, sqlalchemy.exc.ProgrammingError):  # another command is making the tables
            time.sleep(1)
    return _connected(url)


def _connected(url: str) -> RDBStorage:
    try:
        # psycopg reads the password from PGPASSWORD or ~/.pgpass; a server that closed an idle connection is asked anew
        return RDBStorage(
            url.replace("postgresql://", "postgresql+psycopg://", 1),
            engine_kwargs={"pool_pre_ping": True, "connect_args": {"connect_timeout": 20}},
        )
    except ImportError as error:
        raise InputError(f"search.study: PostgreSQL needs psycopg: pip install 'slimsweep[postgres]' ({error})") from error


def _set_aside(path: Path, problem: str, notice: Callable[[str], None]) -> None:
    aside = path.with_name(f"{path.name}.corrupt")
    number = 1
    while aside.exists():
        number += 1
        aside = path.with_name(f"{path.name}.corrupt-{number}")
    path.rename(aside)
    for leftover in path.parent.glob(f"{path.name}-*"):  # sqlite's journal belongs to the damaged file
        leftover.rename(leftover.with_name(f"{aside.name}{leftover.name.removeprefix(path.name)}"))
    notice(
        f"{path}: not a whole study ({' '.join(problem.split())[:120]}); set aside as {aside.name}, and made again from "
        "manifest.json and the ledger"
    )
