"""Opens a sweep's Optuna study: sqlite beside the records, a journal on a shared file system, or PostgreSQL.

A damaged study file is set aside; the sweep fills a new one from manifest.json and the ledger.
"""

import hashlib
import os
import sqlite3
import stat
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import optuna
import sqlalchemy.exc
from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock

from orchestrator.config.model import SweepConfig
from orchestrator.search.cached_storage import CachedStorage
from orchestrator.search.study_check import DamagedStudy, check, reading, tables_missing
from trials.errors import InputError
from trials.ledger.local_files import break_hard_links
from trials.ledger.storage import is_link, is_local, set_aside, sqlite_url

STUDY_ERRORS = (StorageInternalError, sqlalchemy.exc.OperationalError)
"""Raised by an open study that cannot be read or written."""

_LOCK_SECONDS = 30.0  # Optuna's own patience with the lock of a dead process
_TRIES = 5  # attempts to open a server's database
_LOCKED = 60.0  # seconds to wait for another process that writes the file
_BESIDE = ("-journal", "-wal", "-shm")  # endings of the files that sqlite writes beside its own


def open_study(config: SweepConfig, folder: Path, notice: Callable[[str], None]) -> optuna.Study:
    """Loads or creates the study of the sweep in `folder`; call it in `opening`."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    kind = config.search.study
    if kind == "journal" and not is_local(folder):
        raise InputError(
            f"search.study: a journal needs a folder that all commands share, not {folder}; there several share postgresql://..."
        )
    if kind not in _FILES:
        try:
            return _name(config, folder, _load(config, _server(kind)))
        except DamagedStudy as error:
            raise InputError(f"search.study: {kind}: not a whole study ({error}); name another database") from error
    file, open_storage = _FILES[kind]
    path = study_folder(folder) / file
    for name in (file, *(f"{file}{ending}" for ending in _BESIDE)):  # a writer would follow a link
        if is_link(path.with_name(name)):
            _set_aside(path, f"{name} is a symbolic link", notice)
        break_hard_links(path.with_name(name))
    try:
        study = _load(config, open_storage(path, notice))
    except DamagedStudy as error:
        _set_aside(path, str(error), notice)
        study = _load(config, open_storage(path, notice))
    return _name(config, folder, study)


def _load(config: SweepConfig, storage: BaseStorage) -> optuna.Study:
    """Loads or creates the study in this storage, and checks it."""
    directions = [objective.direction for objective in config.search.objectives]
    with reading():
        study = optuna.create_study(
            study_name=config.name,
            storage=CachedStorage(storage) if isinstance(storage, RDBStorage) else storage,
            directions=directions,
            load_if_exists=True,
        )
        check(study, config)
    return study


def _name(config: SweepConfig, folder: Path, study: optuna.Study) -> optuna.Study:
    """Stores the metrics' names and the sweep's folder in the study. InputError where the study is another folder's."""
    names = [objective.metric for objective in config.search.objectives]
    if study.metric_names != names:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            study.set_metric_names(names)
    kind, owner = config.search.study, study.user_attrs.get("folder")
    if owner is None:
        study.set_user_attr("folder", str(folder))
    elif kind not in _FILES and owner != str(folder):
        raise InputError(
            f"search.study: {kind} has a study {config.name!r} of the sweep in {owner}; give this sweep another `name`"
        )
    return study


@contextmanager
def opening(config: SweepConfig, folder: Path) -> Iterator[None]:
    """Wraps everything that opens the study: a database that cannot be opened, read or written is an InputError, one line."""
    try:
        yield
    except (*STUDY_ERRORS, sqlalchemy.exc.ProgrammingError, sqlite3.OperationalError) as error:
        kind = config.search.study
        cause: BaseException = error
        while cause.__cause__ is not None:  # the innermost is the database's own
            cause = cause.__cause__
        place = study_folder(folder) / "study.db" if kind == "sqlite" else kind
        raise InputError(f"search.study: {place}: {' '.join(str(cause).split())[:200]}") from error


def study_folder(folder: Path) -> Path:
    """The folder of the study's file: the sweep's, or one in the user's cache where the sweep's is not local."""
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
    # sqlite would create a file that the group cannot write, whatever the umask
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666))
    with reading():
        return RDBStorage(sqlite_url(path), engine_kwargs={"connect_args": {"timeout": _LOCKED}})


def _damage(path: Path) -> str | None:
    """The problem of a sqlite file, None where there is none."""
    if not path.is_file():
        return "it is no file"
    try:  # connecting plays back the journal of a killed process
        with closing(sqlite3.connect(path, timeout=_LOCKED)) as connection:
            found = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
            return tables_missing(connection) if found == "ok" else str(found)
    except sqlite3.OperationalError:
        raise
    except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
        return str(error)


def _journal(path: Path, notice: Callable[[str], None]) -> JournalStorage:
    if path.exists() and not path.is_file():
        _set_aside(path, "it is no file", notice)
    backend = JournalFileBackend(str(path))  # creates the journal, so that a lock on it links to something
    _remove_dangling(path.with_name(f"{path.name}.lock"))
    _end_last_line(path, notice)
    with reading():  # raises for a line that is not JSON or not Optuna's
        return JournalStorage(backend)


def _remove_dangling(lock: Path) -> None:
    """Removes a lock that links to nothing and stays. Optuna would wait for it forever."""
    found = _dangling(lock)
    since = time.monotonic()
    while found is not None and found == _dangling(lock):
        if time.monotonic() - since > _LOCK_SECONDS:
            lock.unlink(missing_ok=True)
            return
        time.sleep(0.2)


def _dangling(lock: Path) -> tuple[int, int] | None:
    """The identity of a link to nothing. Living locks of machines that mount the folder elsewhere look like one too."""
    try:
        status = lock.lstat()
    except FileNotFoundError:
        return None
    return (status.st_ino, status.st_mtime_ns) if stat.S_ISLNK(status.st_mode) and not lock.exists() else None


def _end_last_line(path: Path, notice: Callable[[str], None]) -> None:
    """Truncates the incomplete last line of a killed process: the next line would be appended to it."""
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
            return _connect(url)
        except (sqlalchemy.exc.IntegrityError, sqlalchemy.exc.ProgrammingError):  # another command creates the tables
            time.sleep(1)
    return _connect(url)


def _connect(url: str) -> RDBStorage:
    try:
        # psycopg reads the password from PGPASSWORD or ~/.pgpass; pre-ping replaces a connection that the server closed
        return RDBStorage(
            url.replace("postgresql://", "postgresql+psycopg://", 1),
            engine_kwargs={"pool_pre_ping": True, "connect_args": {"connect_timeout": 20}},
        )
    except ImportError as error:
        raise InputError(f"search.study: PostgreSQL needs psycopg: pip install 'slimsweep[postgres]' ({error})") from error


def _set_aside(path: Path, problem: str, notice: Callable[[str], None]) -> None:
    # where a file beside it is the problem, the study itself may be missing
    if not (path.exists() or path.is_symlink()):
        path.touch()  # takes the next free name, which the files beside it share
    aside = set_aside(path)
    for leftover in path.parent.glob(f"{path.name}-*"):  # sqlite would play the old journal back into the new file
        leftover.rename(leftover.with_name(f"{aside.name}{leftover.name.removeprefix(path.name)}"))
    notice(
        f"{path}: not a whole study ({' '.join(problem.split())[:120]}); set aside as {aside.name}, and made again from "
        "manifest.json and the ledger"
    )


_FILES: dict[str, tuple[str, Callable[[Path, Callable[[str], None]], BaseStorage]]] = {
    "sqlite": ("study.db", _sqlite),
    "journal": ("study.journal", _journal),
}
