"""Storage failures are recognised and named; other errors pass."""

import errno
import os

import pytest

from trials.errors import InputError, StorageFailed, disk_failure, system_errors_are_input, writing


def test_disk_failure_is_found_in_causes_and_messages():
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    outer = RuntimeError("cannot write")
    outer.__cause__ = full
    assert disk_failure(full) == disk_failure(outer) == os.strerror(errno.ENOSPC)
    assert disk_failure(RuntimeError(f"native code: {os.strerror(errno.EROFS)}")) == os.strerror(errno.EROFS)
    assert disk_failure(ValueError("no disk")) is None


def test_missing_permission_counts_only_with_access():
    error = PermissionError(errno.EACCES, "denied")
    assert disk_failure(error) is None
    assert disk_failure(error, access=True) == os.strerror(errno.EACCES)


def test_writing_names_place_and_reason():
    with pytest.raises(StorageFailed, match=r"^s3://bucket/key: no answer; "), writing("s3://bucket/key"):
        raise OSError(errno.EIO, "no answer")


def test_writing_passes_errors_that_are_not_the_storages():
    with pytest.raises(ValueError, match="a bug"), writing("runs"):
        raise ValueError("a bug")


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (OSError(errno.ELOOP, "Too many links", "/x"), "/x: Too many links"),
        (OSError("no credentials"), "storage: no credentials"),
    ],
)
def test_error_of_the_system_is_one_line_with_its_place(error, line):
    with pytest.raises(InputError) as caught, system_errors_are_input():
        raise error
    assert str(caught.value) == line
