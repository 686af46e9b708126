"""Ray nodes with addresses of their own on one machine, each in network, mount, process and host-name namespaces of its own.

Nodes share the Python installation and one folder (`shared`, at SHARED on every node), as a cluster shares a file system;
/tmp, /dev/shm and the hub's cache are each node's own, and all nodes but the head lack slimsweep. A bridge in a namespace of
its own joins them. Nothing leads to the machine's network, and everything ends with the process that made it.
"""

import functools
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from tests.factories.ray_workers import runs_a_trial

ROOT = Path(__file__).parents[3]
SHARED = "/mnt/shared"
_PACKAGES = ("orchestrator", "trials", "analysis")
_PORT = 6379
_HOLD = ["unshare", "--fork", "--kill-child", "--propagation", "private", "--mount-proc", "--net", "--mount", "--pid", "--uts"]
_SWITCH = """set -e
ip link add bridge type bridge
ip link set bridge up
echo ready
exec sleep infinity
"""
# $1 shared folder, $2 host name, $3 folders to be seen though they lie under /tmp, $4 folders to be empty
_NODE = f"""set -e
hostname "$2"
mount -t tmpfs tmpfs /mnt
mkdir {SHARED} /mnt/machine
mount --bind "$1" {SHARED}
mount --bind / /mnt/machine
mount -t tmpfs tmpfs /dev/shm
mount -t tmpfs tmpfs /tmp
IFS=:
for folder in $3; do mkdir -p "$folder"; mount --bind "/mnt/machine$folder" "$folder"; done
for folder in $4; do mount -t tmpfs tmpfs "$folder"; done
umount -l /mnt/machine
echo ready
exec sleep infinity
"""


def unavailable() -> str | None:
    """Why there can be no namespaces here; None where there can."""
    if sys.platform != "linux":
        return "namespaces are Linux's"
    if missing := [name for name in ("unshare", "nsenter", "ip") if shutil.which(name) is None]:
        return f"{', '.join(missing)} not found (Debian: util-linux, iproute2)"
    tried = subprocess.run(
        [*_HOLD, "ip", "link", "add", "bridge", "type", "bridge"], capture_output=True, text=True, check=False
    )
    return tried.stderr.strip() if tried.returncode else None


class _Namespaces:
    """Namespaces held by a sleeping process, the first in them: when it dies, all that runs in them dies."""

    def __init__(self, script: str, *arguments: str):
        line = [*_HOLD, "sh", "-c", script, "sh", *arguments]
        self._holder = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert self._holder.stdout and self._holder.stderr
        if self._holder.stdout.readline() != "ready\n":
            raise RuntimeError(f"no namespaces: {self._holder.stderr.read()}")
        children = Path(f"/proc/{self._holder.pid}/task/{self._holder.pid}/children")
        self.pid = int(children.read_text().split()[0])

    def enter(self, *command: str, network_alone: bool = False) -> list[str]:
        """The command line that runs a command inside; `network_alone` leaves everything but the network as it is here."""
        kinds = ["--net"] if network_alone else ["--net", "--mount", "--pid", "--uts"]
        return ["nsenter", "--target", str(self.pid), *kinds, *command]

    def workers(self) -> list[psutil.Process]:
        """Ray's worker processes inside that run a trial at this moment."""
        inside, found = self._namespace(self.pid), []
        for process in psutil.process_iter():
            try:
                if runs_a_trial(process) and self._namespace(process.pid) == inside:
                    found.append(process)
            except (psutil.Error, OSError):  # it has just ended, or is not ours
                continue
        return found

    @staticmethod
    def _namespace(pid: int) -> Path:
        return Path(f"/proc/{pid}/ns/pid").readlink()

    def kill(self) -> None:
        """Ends all processes inside at once, as a power cut does."""
        os.kill(self.pid, signal.SIGKILL)
        self._holder.wait()


class Node(_Namespaces):
    """One Ray node; `address` is its IP address, `name` its host name."""

    def __init__(self, number: int, shared: Path):
        self.name, self.address = f"node{number}", f"10.123.0.{number + 1}"
        self.is_head = number == 0
        seen = {str(folder) for folder in (ROOT, Path(sys.prefix), Path(sys.base_prefix)) if folder.is_relative_to("/tmp")}
        super().__init__(_NODE, str(shared), self.name, ":".join(seen), "" if self.is_head else ":".join(_installed()))
        self._environment = {
            **{name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ},
            **{"HOME": "/tmp", "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0"},
            **({"PYTHONPATH": str(ROOT)} if self.is_head else {}),
        }

    @functools.cache  # noqa: B019  # a node lives as long as its cluster
    def lease_host(self) -> str:
        """The host that leases of this node name. The code is this checkout's: the node itself may lack it."""
        inside = ["nsenter", "--target", str(self.pid), "--pid", "--uts"]
        code = "from trials.ledger.lease import _host; print(_host())"
        return subprocess.run(
            [*inside, sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True
        ).stdout.strip()

    def popen(self, *command: str, log: Path, **environment: str) -> subprocess.Popen[bytes]:
        """Starts a command on the node, in its /tmp, with its output in a file of this machine's."""
        with log.open("ab") as out:
            line = self.enter("sh", "-c", 'cd /tmp && exec "$@"', "sh", *command)
            return subprocess.Popen(line, stdout=out, stderr=out, env=self._environment | environment)

    def start_ray(self, head: "Node", cpus: int, log: Path) -> None:
        """Returns at once; raises nothing when Ray fails to start: the log says so."""
        joined = (
            ["--head", f"--port={_PORT}", "--include-dashboard=false"]
            if self is head
            else [f"--address={head.address}:{_PORT}"]
        )
        options = [f"--node-ip-address={self.address}", f"--num-cpus={cpus}", "--object-store-memory=100000000"]
        self.popen(sys.executable, "-m", "ray.scripts.scripts", "start", *joined, *options, "--block", log=log)


def _installed() -> set[str]:
    """The folders in which a Python here finds slimsweep's packages, this checkout's among them."""
    code = "import importlib.util as u, sys; print(*[s.origin for n in sys.argv[1:] if (s := u.find_spec(n))], sep='\\n')"
    asked = subprocess.run([sys.executable, "-c", code, *_PACKAGES], cwd="/", capture_output=True, text=True, check=True)
    return {str(ROOT / name) for name in _PACKAGES} | {str(Path(line).parent) for line in asked.stdout.split()}


class Cluster:
    """A head without room for trials and workers with one CPU each; more can be added, and each can be lost."""

    def __init__(self, folder: Path, workers: int, ray: bool = True):
        """`folder` takes the logs, NODE.log each; the nodes share its folder `shared`. Without `ray` they run nothing."""
        self.folder, self.shared, self._ray = folder, folder / "shared", ray
        self.shared.mkdir()
        self._switch = _Namespaces(_SWITCH)
        self.nodes: list[Node] = []
        self.head = self.add(cpus=0)
        for _ in range(workers):
            self.add()

    def add(self, cpus: int = 1) -> Node:
        """A node that joins the cluster, in its own time."""
        node = Node(len(self.nodes), self.shared)
        self.nodes.append(node)
        plug = f"port{len(self.nodes)}"
        steps = [
            self._switch.enter(*f"ip link add {plug} type veth peer name eth0 netns {node.pid}".split(), network_alone=True),
            self._switch.enter(*f"ip link set {plug} master bridge up".split(), network_alone=True),
            node.enter(*f"ip address add {node.address}/24 dev eth0".split(), network_alone=True),
            node.enter(*["ip", "link", "set", "eth0", "up"], network_alone=True),
            node.enter(*["ip", "link", "set", "lo", "up"], network_alone=True),
            # leads nowhere; Ray finds out its own address by asking which way it would leave
            node.enter(*["ip", "route", "add", "default", "dev", "eth0"], network_alone=True),
        ]
        for step in steps:
            subprocess.run(step, check=True)
        if node.is_head:
            self.head = node
        if self._ray:
            node.start_ray(self.head, cpus, self.folder / f"{node.name}.log")
        return node

    def lose(self, node: Node) -> None:
        """The node's network goes silent and then all of it is gone: nobody is told."""
        subprocess.run(node.enter(*["ip", "link", "set", "eth0", "down"], network_alone=True), check=True)
        node.kill()

    def slimsweep(self, *arguments: str, log: str = "driver.log", **environment: str) -> subprocess.Popen[bytes]:
        """The program on the head node."""
        return self.head.popen(sys.executable, "-m", "orchestrator.cli", *arguments, log=self.folder / log, **environment)

    def wait_for_nodes(self, number: int) -> None:
        """Until so many nodes have joined; AssertionError with the logs after ten minutes, which a busy machine may take."""
        code = f"""
import ray, sys, time
for _ in range(600):
    try:
        ray.init(address="auto", log_to_driver=False, logging_level="ERROR")
        break
    except ConnectionError:
        time.sleep(1)
for _ in range(600):
    if sum(node["Alive"] for node in ray.nodes()) >= {number}:
        sys.exit(0)
    time.sleep(1)
sys.exit(1)
"""
        log = self.folder / "waiting.log"
        assert self.head.popen(sys.executable, "-c", code, log=log).wait() == 0, self.logs()

    def logs(self) -> str:
        return "\n".join(f"== {path.name}\n{path.read_text()[-3000:]}" for path in sorted(self.folder.glob("*.log")))

    def close(self) -> None:
        for one in [*self.nodes, self._switch]:
            if one._holder.poll() is None:
                one.kill()


@contextmanager
def cluster(folder: Path, workers: int = 3) -> Iterator[Cluster]:
    made = Cluster(folder, workers)
    try:
        made.wait_for_nodes(workers + 1)
        yield made
    finally:
        made.close()


def until(true: object, seconds: float, what: str) -> None:
    """Polls a condition; AssertionError when it has not come true in time."""
    end = time.monotonic() + seconds
    while not true():  # type: ignore[operator]
        assert time.monotonic() < end, f"not within {seconds:.0f} s: {what}"
        time.sleep(0.5)
