"""The exceptions that end a command with one line: what was asked for cannot be done, or there is no place to write it."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager

_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
_ACCESS = (errno.EACCES, errno.EPERM)


class InputError(Exception):
    """Its text is what the user reads: one line a problem, saying what is wrong, where, and what would be right."""


class StorageFailed(OSError):
    """The storage cannot be written: full, read-only or not ours. Its text is one line that names the place and the reason.

    It says nothing about the trial that met it: the trial stays unfinished, and goes on when there is room.
    """


def disk_failure(error: BaseException | None, *, access: bool = False) -> str | None:
    """The reason in words when the error, or what caused it, is a full or read-only disk (with `access` also a refused one).

    Writers in other languages wrap the number into a text of their own, so the system's words are looked for as well.
    """
    numbers = _DISK + (_ACCESS if access else ())
    while error is not None:
        for number in numbers:
            if getattr(error, "errno", None) == number or os.strerror(number) in str(error):
                return os.strerror(number)
        error = error.__cause__
    return None


@contextmanager
def writing(place: object) -> Iterator[None]:
    """Raises StorageFailed for an error in the block that says that `place`, in the storage, cannot be read or written."""
    try:
        yield
    except StorageFailed:
        raise
    except Exception as error:
        reason = disk_failure(error, access=True) or getattr(error, "strerror", None)
        if reason is None:
            raise
        raise storage_failed(place, reason) from error


def storage_failed(place: object, reason: str) -> StorageFailed:
    return StorageFailed(f"{place}: {reason}; what was finished stays, and the same command goes on from there")
