"""Storage roots: a folder, or a place in an object store (s3://, gs://), behind one set of functions.

Writes are atomic. Nothing is cached, so the writes of other processes are visible at once. A store's credentials come from the
environment variables of its own library (AWS_*, GOOGLE_*) and are stored nowhere.
"""

import errno
import itertools
import json
import os
import re
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Thread
from typing import Any, cast
from urllib.parse import quote, urlsplit

import fsspec
from upath import UPath

from trials.errors import InputError
from trials.ledger import local_files
from trials.ledger.local_files import NotAFile as NotAFile

EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs"}
"""By scheme, the extra of this package that installs its library. Only these stores have a PUT that creates exclusively."""
_VARIABLE = re.compile(r"\$(?:\{(?P<braced>[^}]*)\}|(?P<plain>[A-Za-z_][A-Za-z0-9_]*))")
_TREE = "tree.json"  # lists a folder's files in a store and is written last: without it the folder does not count
_ANSWERS = 20.0  # seconds within which a working store answers; its library would retry for minutes
_honest: set[str] = set()  # buckets that have refused a second creation


def local(text: str | Path, name: str = "") -> Path:
    """A path from user input, with `~` and `$VARIABLE` expanded; a Path is returned unchanged.

    Raises InputError, which begins with `name`, for an unset variable or an unknown home folder, so no folder is named
    `$SCRATCH` or `~` by accident. `./~` is a folder with that name; a `$` before a name cannot be quoted.
    """
    return Path(expanded(text, name)) if isinstance(text, str) else text


def expanded(text: str, name: str = "") -> str:
    """The text with a leading `~` and every `$VARIABLE` or `${VARIABLE}` replaced; see `local`."""
    where = f"{name}: {text}" if name else text

    def value(match: re.Match[str]) -> str:
        variable = match["braced"] if match["plain"] is None else match["plain"]
        if not os.environ.get(variable):
            raise InputError(f"{where}: the environment variable {variable} is not set")
        return os.environ[variable]

    found = os.path.expanduser(_VARIABLE.sub(value, text))  # noqa: PTH111  # pathlib's raises a RuntimeError
    if found.startswith("~"):
        raise InputError(f"{where}: {found.partition('/')[0]} is nobody's home folder here; set HOME, or write ./{found}")
    return found


def root(text: str | Path) -> Path:
    """A Path for a local path or file://, a UPath for another URL; InputError for an unsupported one.

    `~` and variables in a string are expanded. A UPath has the methods of Path that the program uses (/, name, parent, exists,
    is_dir, read_text) and is typed as one.
    """
    if isinstance(text, Path | UPath):
        return cast(Path, text)
    scheme, separator, rest = text.partition("://")
    if not separator:
        return local(text, "storage")
    if scheme == "file":
        return local(rest, "storage")
    text = expanded(text, "storage")
    check_url(text)
    try:
        fsspec.get_filesystem_class(scheme)
    except ImportError:
        raise InputError(f"storage: {text}: a package is missing: pip install 'slimsweep[{EXTRAS[scheme]}]'") from None
    # a cached listing would hide the writes of other processes
    return cast(Path, UPath(text, use_listings_cache=False))


def sqlite_url(path: Path) -> str:
    """SQLAlchemy's URL of a file, quoted: `?`, `%` and `{` in a name have a meaning in a URL or for Optuna."""
    return f"sqlite:///{quote(str(path.absolute()))}"


def check_url(text: str) -> None:
    """Raises InputError for a URL that is no storage root, independent of the packages installed here."""
    scheme, separator, _ = text.partition("://")
    if not separator or scheme == "file":
        return
    place = urlsplit(text).netloc
    if "@" in place:
        raise InputError(f"storage: {scheme}://...@: a URL carries no credentials here; they come from the environment")
    if scheme not in EXTRAS:
        raise InputError(f"storage: {text}: {scheme}:// is not supported; a path, file://, s3:// or gs:// is right")
    if not place:
        raise InputError(f"storage: {text}: names no bucket")


def is_local(path: Path) -> bool:
    return isinstance(path, Path)


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Any, str]]:
    """The store of a remote path, and the path within it. Every error becomes an OSError that names the path."""
    store = cast(Any, path)
    try:
        yield store.fs, store.path
    except OSError as error:
        if error.strerror is None:
            error.strerror = " ".join(str(error).split())
        if error.filename is None:
            error.filename = str(path)
        raise
    except InputError:
        raise
    except Exception as error:  # each store's library has exceptions of its own for a missing key, server or route
        raise OSError(errno.EIO, " ".join(str(error).split()), str(path)) from error


def check_store(place: Path) -> None:
    """Raises InputError where files cannot be created, listed, read and removed below a store's root. Skips local folders."""
    if is_local(place):
        return
    checked: Future[None] = Future()
    Thread(target=_probe, args=(place, checked), daemon=True).start()
    try:
        checked.result(_ANSWERS)
    except TimeoutError:
        reason = f"the store did not answer within {_ANSWERS:g} seconds"
    except OSError as error:
        reason = error.strerror or str(error)
    else:
        return
    raise InputError(
        f"storage: {place}: {reason.rstrip('.')} "
        "(the bucket has to exist; credentials, region and endpoint come from the environment)"
    )


def _probe(place: Path, checked: Future[None]) -> None:
    probe = place / f".probe-{uuid.uuid4().hex}"
    try:
        create(probe, "")
        read_bytes(probe)
        names(place)
        remove(probe)
        checked.set_result(None)
    except BaseException as error:  # noqa: BLE001  # raised again by the waiting thread
        checked.set_exception(error)


def exists(path: Path) -> bool:
    if is_local(path):
        return path.exists()
    with _opened(path) as (store, name):
        return cast(bool, store.exists(name))


def is_folder(path: Path) -> bool:
    if is_local(path):
        return path.is_dir()
    with _opened(path) as (store, name):
        return cast(bool, store.isdir(name))


# ---------------------------------------------------------------------- reading


def read_bytes(path: Path) -> bytes:
    """The file's current content. FileNotFoundError where it is missing, NotAFile where it is no regular file."""
    if is_local(path):
        return local_files.read(path)
    with _opened(path) as (store, name):
        return cast(bytes, store.cat_file(name))  # a single request, so never parts of two versions


def read_text(path: Path) -> str:
    return read_bytes(path).decode("utf-8")


def names(folder: Path) -> list[str]:
    """Sorted names of the files and folders in a folder; empty for a missing folder."""
    try:
        if is_local(folder):
            return sorted(path.name for path in folder.iterdir())
        with _opened(folder) as (store, name):
            found = [path.rstrip("/") for path in store.ls(name, detail=False)]
            return sorted(path.rpartition("/")[2] for path in found if path != name)  # some tools create an object for a folder
    except (FileNotFoundError, NotADirectoryError):
        return []


def folders_with(folder: Path, file: str) -> list[str]:
    """Sorted names of the subfolders that contain this file."""
    if is_local(folder):
        return sorted(path.parent.name for path in folder.glob(f"*/{file}"))
    with _opened(folder) as (store, name):
        # a recursive listing needs one request a thousand files; a listing of each folder would need one a folder
        below = (found.removeprefix(name).strip("/").split("/") for found in store.find(name))
        return sorted(parts[0] for parts in below if len(parts) == 2 and parts[1] == file)


# ---------------------------------------------------------------------- writing


def write_text(path: Path, text: str) -> None:
    """Writes atomically: no reader sees a part of the file."""
    replace_file(path, lambda partial: partial.write_text(text, encoding="utf-8"))


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=1, allow_nan=False) + "\n")


def replace_file(path: Path, write: Callable[[Path], Any]) -> None:
    """Lets `write` fill a local file, then moves it to `path` atomically: by a rename, or by one upload."""
    if is_local(path):
        local_files.replace(path, write)
        return
    with tempfile.TemporaryDirectory(prefix="slimsweep-") as scratch:
        partial = Path(scratch) / path.name
        write(partial)
        with _opened(path) as (store, name):
            store.put_file(str(partial), name)


def create(path: Path, text: str) -> bool:
    """Creates a file exclusively: True for at most one of several callers. The file is never visible without its text.

    InputError for a store that accepts the condition but overwrites all the same.
    """
    if is_local(path):
        return local_files.create(path, text)
    scheme, bucket = urlsplit(str(path))[:2]
    if not _put_new(path, text):
        return False
    if f"{scheme}://{bucket}" not in _honest:
        if _put_new(path, text):
            raise InputError(f"{path}: this store ignores If-None-Match, which leases need; use another one or a folder")
        _honest.add(f"{scheme}://{bucket}")
    return True


def _put_new(path: Path, text: str) -> bool:
    with _opened(path) as (store, name):
        try:
            store.pipe_file(name, text.encode(), mode="create")
        except FileExistsError:
            return False
        except OSError as error:
            answer = getattr(error.__cause__, "response", {}).get("ResponseMetadata", {}).get("HTTPStatusCode")
            if answer in (409, 412):  # another process is creating it right now; it exists already
                return False
            raise
    return True


def rename(path: Path, to: Path) -> None:
    """Moves a file within its root; in a store, by a copy and a removal."""
    if is_local(path):
        path.rename(to)
        local_files.sync(to.parent)
        return
    with _opened(path) as (store, name):
        store.mv(name, cast(Any, to).path)


def remove(path: Path) -> None:
    """Removes a file, a symbolic link or a whole folder, where there is one."""
    if is_local(path):
        local_files.remove(path)
        return
    with suppress(FileNotFoundError), _opened(path) as (store, name):
        store.rm(name, recursive=True)


def is_link(path: Path) -> bool:
    return is_local(path) and path.is_symlink()


def refuse_link(path: Path) -> Path:
    """The path, unless it is a symbolic link: then InputError.

    Otherwise anybody with write access to the root could make the program write to or clear a folder of its user.
    """
    if is_link(path):
        raise InputError(f"{path}: a symbolic link, which is not followed below a storage root; move it away")
    return path


@contextmanager
def anchored(folder: Path, depth: int) -> Iterator[Path]:
    """`local_files.anchored` for a local folder; a store has no symbolic links, so there it is the folder itself."""
    if is_local(folder):
        with local_files.anchored(folder, depth) as place:
            yield place
    else:
        yield folder


def set_aside(path: Path) -> Path:
    """Renames an unusable file or folder to NAME.corrupt, or NAME.corrupt.1 and so on; returns the new path."""
    existing = names(path.parent)
    aside = (f"{path.name}.corrupt{f'.{n}' if n else ''}" for n in itertools.count())
    to = path.with_name(next(name for name in aside if name not in existing))
    rename(path, to)
    return to


# ---------------------------------------------------------------------- whole folders


def upload(folder: Path, to: Path) -> None:
    """Moves a local folder to its place in the root and replaces what was there: a reader finds all of it or none."""
    if is_local(to):
        local_files.move_folder(folder, to)
        return
    files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    remove(to / _TREE)
    remove(to)
    with _opened(to) as (store, name):
        store.put([str(folder / file) for file in files], [f"{name}/{file}" for file in files])
    write_json(to / _TREE, files)
    shutil.rmtree(folder)


def download(path: Path, folder: Path) -> None:
    """Copies an uploaded folder into the local `folder`; FileNotFoundError where it is missing or incomplete."""
    if is_local(path):
        shutil.copytree(path, folder, dirs_exist_ok=True)
        return
    files = json.loads(read_text(path / _TREE))
    for file in files:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
    with _opened(path) as (store, name):
        store.get([f"{name}/{file}" for file in files], [str(folder / file) for file in files])
