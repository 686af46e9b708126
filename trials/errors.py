"""The exceptions that end a command with one line: a bad input, or a storage that cannot be written."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager

_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
_ACCESS = (errno.EACCES, errno.EPERM)


class InputError(Exception):
    """A bad input. Its text has one line a problem: what is wrong, where, and what would be right."""


@contextmanager
def system_errors_are_input() -> Iterator[None]:
    """Raises InputError, in one line, for an error of the operating system or of a store in the block."""
    try:
        yield
    except OSError as error:
        raise InputError(f"{error.filename or 'storage'}: {error.strerror or error}") from error


class StorageFailed(OSError):
    """The storage cannot be written: full, read-only or without permission. Its text is one line with the place and the reason.

    The trial does not fail by it: it stays unfinished and resumes when there is room.
    """


def disk_failure(error: BaseException | None, *, access: bool = False) -> str | None:
    """The reason in words where the error or its cause is a full or read-only disk, or with `access` a missing permission."""
    numbers = _DISK + (_ACCESS if access else ())
    while error is not None:
        for number in numbers:
            # native libraries report no errno, but repeat the system's message
            if getattr(error, "errno", None) == number or os.strerror(number) in str(error):
                return os.strerror(number)
        error = error.__cause__
    return None


@contextmanager
def writing(place: object) -> Iterator[None]:
    """Raises StorageFailed for an error in the block if it means that `place` cannot be read or written."""
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
