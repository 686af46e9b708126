"""Files and folders on this machine: durable, atomic writes, and reads that follow no symbolic link."""

import errno
import os
import secrets
import shutil
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from trials.errors import InputError

_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}


class NotAFile(IsADirectoryError):
    """A folder, a pipe, a device, a socket or a symbolic link stands where a file should; `strerror` says which."""


def read(path: Path) -> bytes:
    try:
        # Opening a pipe without a writer would block. The target of a link may be a file that only this user may read.
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise NotAFile(error.errno, "a symbolic link, which is not followed", str(path)) from None
        if error.errno == errno.ENXIO:
            raise NotAFile(error.errno, "a socket, not a file", str(path)) from None
        raise
    mode = os.fstat(handle).st_mode
    if not stat.S_ISREG(mode):
        os.close(handle)
        kind = "a folder" if stat.S_ISDIR(mode) else "a pipe or a device"
        raise NotAFile(errno.EISDIR, f"{kind}, not a file", str(path))
    with open(handle, "rb") as file:  # noqa: PTH123  # a descriptor
        return file.read()


def replace(path: Path, write: Callable[[Path], Any]) -> None:
    """Lets `write` fill a file beside `path`, then renames it: a reader finds the old content or the new one."""
    with _temporary_sibling(path) as partial:
        write(partial)
        sync(partial)
        partial.replace(path)
        sync(path.parent)


def create(path: Path, text: str) -> bool:
    """Creates a file with its text in one step; False where it exists."""
    with _temporary_sibling(path) as partial:
        partial.write_text(text, encoding="utf-8")
        sync(partial)
        try:
            os.link(partial, path)
        except FileExistsError:
            # NFS may lose the answer to a successful link and repeat the request
            return partial.stat().st_nlink == 2
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            try:
                with path.open("x", encoding="utf-8") as handle:
                    handle.write(text)
            except FileExistsError:
                return False
        sync(path.parent)
    return True


def move_folder(folder: Path, to: Path) -> None:
    """Moves a folder over what is at `to`, also from another disk."""
    to.parent.mkdir(parents=True, exist_ok=True)
    if folder.stat().st_dev != to.parent.stat().st_dev:
        beside = Path(tempfile.mkdtemp(dir=to.parent, prefix=f".{to.name}."))
        try:
            shutil.copytree(folder, beside, dirs_exist_ok=True)
            move_folder(beside, to)
        finally:
            shutil.rmtree(beside, ignore_errors=True)
        shutil.rmtree(folder)
        return
    follow_umask(folder)
    for path in [*folder.rglob("*"), folder]:
        sync(path)
    remove(to)
    folder.rename(to)
    sync(to.parent)


def remove(path: Path) -> None:
    """Removes a file, a symbolic link or a whole folder, where there is one."""
    with suppress(FileNotFoundError):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def follow_umask(folder: Path) -> None:
    """Gives a folder and all in it the permissions of new files: some libraries write files that only their owner can read."""
    with _temporary_sibling(folder) as probe:  # the umask cannot be read without changing it
        mode = probe.stat().st_mode & 0o666
    for _, _, files, handle in os.fwalk(folder):  # follows no links
        os.fchmod(handle, mode | (mode & 0o444) >> 2)
        for name in files:
            if stat.S_ISREG(os.stat(name, dir_fd=handle, follow_symlinks=False).st_mode):
                opened = os.open(name, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW, dir_fd=handle)
                try:
                    os.fchmod(opened, mode)
                finally:
                    os.close(opened)


def break_hard_links(path: Path) -> None:
    """Replaces a file that has several hard links by a copy: a writer in place would change the other names' content."""
    if path.is_file() and path.stat().st_nlink > 1:
        replace(path, lambda partial: shutil.copyfile(path, partial))


@contextmanager
def anchored(folder: Path, depth: int) -> Iterator[Path]:
    """A folder, created where it is missing, under a path that stays the same folder even when somebody renames it.

    InputError where one of the last `depth` names of `folder`, those below its storage root, is a symbolic link.
    """
    top = folder.parents[depth - 1]
    top.mkdir(parents=True, exist_ok=True)
    handle = os.open(top, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for name in folder.parts[-depth:]:
            below = _open_subfolder(handle, name, folder)
            os.close(handle)
            handle = below
        # The kernel's name for the open folder. Other systems have no path to it that a library could open files in.
        place = Path(f"/proc/self/fd/{handle}") if sys.platform == "linux" else folder
        try:
            yield place
        except OSError as error:
            if isinstance(error.filename, str) and Path(error.filename).is_relative_to(place):  # a path that no reader knows
                error.filename = str(folder / Path(error.filename).relative_to(place))
            raise
    finally:
        os.close(handle)


def _open_subfolder(parent: int, name: str, whole: Path) -> int:
    try:
        with suppress(FileExistsError):
            os.mkdir(name, dir_fd=parent)
        return os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=parent)
    except OSError as error:
        # O_DIRECTORY and O_NOFOLLOW together give ENOTDIR for a link on Linux, ELOOP or EMLINK elsewhere
        if error.errno == errno.ELOOP or _is_link_in(parent, name):
            raise InputError(f"{whole}: {name} is a symbolic link, which is not followed below a storage root") from None
        error.filename = str(whole)
        raise


def _is_link_in(parent: int, name: str) -> bool:
    try:
        return stat.S_ISLNK(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode)
    except FileNotFoundError:  # it vanished since it was opened
        return False


@contextmanager
def _temporary_sibling(path: Path) -> Iterator[Path]:
    """An empty file in the folder of `path`, which is created where it is missing; removed unless it was renamed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{secrets.token_hex(8)}")  # mkstemp ignores the umask: only the owner could read
    os.close(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
    try:
        yield partial
    finally:
        partial.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Writes a file's content, or the names in a folder, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if not path.is_dir() or error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some mounts sync no folders
            raise
    finally:
        os.close(handle)
