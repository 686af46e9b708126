"""A PostgreSQL server of the tests' own, on loopback, in a temporary folder. Debian: apt-get install postgresql."""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def programs() -> Path | None:
    """The folder of initdb and postgres, or None."""
    found = [Path(place).resolve().parent for place in [shutil.which("initdb")] if place]
    found += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((folder for folder in found if (folder / "initdb").exists() and (folder / "postgres").exists()), None)


def user() -> str | None:
    """Whom the server runs as: it refuses root."""
    if os.geteuid() != 0:
        return None
    try:
        pwd.getpwnam("postgres")
    except KeyError:
        return "nobody"
    return "postgres"


@contextmanager
def server(folder: Path) -> Iterator[str]:
    """Runs a server whose files lie in `folder` and yields its URL; without a password, from this machine alone."""
    bin_folder, owner = programs(), user()
    assert bin_folder is not None
    folder.mkdir(parents=True, exist_ok=True)
    if owner is not None:
        shutil.chown(folder, owner)
        for parent in folder.parents:  # pytest's folders are closed to other users
            if parent.owner() == "root" and parent != Path("/") and parent.stat().st_mode & 0o011 == 0:
                parent.chmod(parent.stat().st_mode | 0o011)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    subprocess.run(
        [bin_folder / "initdb", "-D", folder / "data", "-A", "trust", "-U", "slimsweep", "--no-sync"],
        check=True, capture_output=True, user=owner, cwd=folder,
    )  # fmt: skip
    process = subprocess.Popen(
        [bin_folder / "postgres", "-D", folder / "data", "-h", "127.0.0.1", "-p", str(port), "-k", folder],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, user=owner, cwd=folder,
    )  # fmt: skip
    try:
        _answers(port)
        yield f"postgresql://slimsweep@127.0.0.1:{port}/postgres"
    finally:
        process.send_signal(signal.SIGINT)  # at once, whoever is still connected
        process.wait(timeout=30)


def _answers(port: int) -> None:
    for _ in range(300):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise RuntimeError("PostgreSQL did not start")
