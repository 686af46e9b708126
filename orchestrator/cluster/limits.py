"""Limits of this machine that a local Ray would exceed: its folder, open files, threads, file size, memory."""

import os
import re
import resource
import sys
import tempfile
from pathlib import Path

from trials.errors import InputError

_LONGEST = 41  # bytes of Ray's folder: a socket's path has 107 at most, and Ray appends /session_.../sockets/plasma_store
_FILES = 65_536  # open files that Ray requests
_THREADS = 300  # of the driver, Ray's processes and one worker; Ray hangs with 200
_ROOM = 64 << 20  # bytes that Ray's folder needs for logs


def ray_folder() -> str:
    """The folder of Ray's sessions; InputError where RAY_TMPDIR is unfit, or every folder is and it is not set."""
    try:
        tempfile.gettempdir()
    except FileNotFoundError:
        raise InputError("temporary files: no folder for them can be written; set TMPDIR to one") from None
    if named := os.environ.get("RAY_TMPDIR"):
        if problem := _unfit(named):
            raise InputError(f"RAY_TMPDIR: {named}: {problem}")
        return str(Path(named) / "ray")
    candidates = [os.environ.get(name) for name in ("TMPDIR", "XDG_RUNTIME_DIR")]
    candidates = [candidates[0], "/tmp", "/var/tmp", candidates[1], "/dev/shm", os.environ.get("HOME")]
    problems = {folder: _unfit(folder) for folder in candidates if folder}
    for folder, problem in problems.items():
        if problem is None:
            return str(Path(folder) / "ray")
    reasons = "; ".join(f"{folder}: {problem}" for folder, problem in problems.items())
    raise InputError(f"Ray needs a folder for its sockets and logs; set RAY_TMPDIR ({reasons})")


def check_folder() -> None:
    """Raises InputError as `ray_folder`, unless this process has a Ray already and starts none."""
    ray = sys.modules.get("ray")  # importing it takes seconds
    if ray is None or not ray.is_initialized():
        ray_folder()


def _unfit(folder: str) -> str | None:
    """Why Ray cannot keep its sessions in the folder; None where it can."""
    place = Path(folder) / "ray"
    if not place.is_absolute():
        return "not an absolute path"
    if len(os.fsencode(place)) > _LONGEST:
        return f"longer than {_LONGEST - len('/ray')} bytes, which Ray's sockets need"
    if not folder.isascii():
        return "Ray takes ASCII characters alone"
    there = place if place.exists() else Path(folder)
    if not there.is_dir():
        return "no such folder"
    if not os.access(there, os.W_OK | os.X_OK):
        return "cannot be written"
    status = os.statvfs(there)
    return "the disk is full" if status.f_bavail * status.f_frsize < _ROOM else None


def raise_open_files() -> None:
    """Raises the limit of open files as far as the system allows; Ray's processes inherit it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _FILES if hard == resource.RLIM_INFINITY else min(hard, _FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def check_file_size(needed: int) -> None:
    """InputError where Ray's object store, which is a file, exceeds the limit of file sizes."""
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    if limit != resource.RLIM_INFINITY and limit < needed:
        raise InputError(
            f"a process may write files of {limit >> 10} KiB here (ulimit -f), but Ray's object store is a file of "
            f"{needed >> 20} MiB; raise that limit"
        )


def check_threads() -> None:
    """InputError where this user may start fewer threads than a local Ray needs: it would hang or abort."""
    limit = resource.getrlimit(resource.RLIMIT_NPROC)[0]
    if os.geteuid() != 0 and limit != resource.RLIM_INFINITY and limit < _THREADS:
        raise InputError(
            f"this user may start {limit} processes and threads (ulimit -u); Ray needs {_THREADS}: raise that limit"
        )


def oom_kills() -> int:
    """The number of out-of-memory kills since the kernel started; 0 where it does not report them."""
    try:
        text = Path("/proc/vmstat").read_text(encoding="ascii")
    except OSError:
        return 0
    return int((re.findall(r"^oom_kill (\d+)", text, re.M) or ["0"])[0])


def low() -> str | None:
    """The limits of this process under which Ray may not start; None without any."""
    found = []
    for number, option, unit, size, enough in _LIMITS:
        limit = resource.getrlimit(number)[0]
        if limit != resource.RLIM_INFINITY and limit < enough:
            found.append(f"{limit // size} {unit} (ulimit {option})")
    return ", ".join(found) or None


_LIMITS = (
    (resource.RLIMIT_AS, "-v", "MiB of memory", 2**20, 64 * 2**30),
    (resource.RLIMIT_NOFILE, "-n", "open files", 1, 1024),
    (resource.RLIMIT_NPROC, "-u", "processes", 1, 1024),
    (resource.RLIMIT_FSIZE, "-f", "MiB a file", 2**20, 2**30),
)
