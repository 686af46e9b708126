"""A Ray head of the tests' own on loopback, with a job server and a client server: what `ray start --head` gives a cluster."""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

AUTHENTICATION = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
"""For the environment of whoever is to be let in."""


@dataclass(frozen=True)
class Head:
    address: str
    """HOST:PORT, for drivers on this machine."""
    jobs: str
    """http://HOST:PORT"""
    client: str
    """ray://HOST:PORT"""
    session: Path
    """Ray's own files: logs, packages, sockets."""


def free_ports(count: int) -> list[int]:
    with ExitStack() as held:
        probes = [held.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]


@contextmanager
def head(folder: Path, cpus: int = 2) -> Iterator[Head]:
    """Runs a head whose log goes to `folder` and ends it with all that it started."""
    port, dashboard, client, agent = free_ports(4)
    command = [
        *(str(Path(sys.executable).parent / "ray"), "start", "--head", "--block", "--disable-usage-stats"),
        *("--node-ip-address=127.0.0.1", f"--port={port}", f"--num-cpus={cpus}", "--num-gpus=0"),
        *("--include-dashboard=true", "--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}"),
        *(f"--ray-client-server-port={client}", "--object-store-memory=200000000"),
        f"--dashboard-agent-listen-port={agent}",  # jobs start through it; its own default is one port for all of a machine
    ]
    # workers find this interpreter as `python`, as on a node whose image has the packages
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "RAY_CLIENT_SERVER_CHECK_CHANNEL_TIMEOUT_S": "300",  # a busy machine takes more than its 30 seconds to start one
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # or it takes this machine's address for the loopback one it was given
        **AUTHENTICATION,
    }
    session = Path(tempfile.mkdtemp(prefix="ray-"))  # a short path: sockets lie in it, and theirs have at most 107 characters
    command.append(f"--temp-dir={session}")
    with (folder / "head.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True, env=environment, cwd=folder)
    try:
        for wanted in (port, dashboard, client, agent):
            _answers(wanted, process, folder / "head.log")
        yield Head(f"127.0.0.1:{port}", f"http://127.0.0.1:{dashboard}", f"ray://127.0.0.1:{client}", session)
    finally:
        process.terminate()  # it ends what it started
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
        shutil.rmtree(session, ignore_errors=True)


def _answers(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(1200):
        if process.poll() is not None:
            raise RuntimeError(f"ray start ended: {log.read_text()[-1000:]}")
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise RuntimeError(f"nothing listens on port {port}")
