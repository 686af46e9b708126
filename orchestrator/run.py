"""One command that drives a sweep: inputs checked, the study opened, the trials run on Ray.

Driving a sweep that was cut off is driving it again.
"""

import fcntl
import gc
import os
import tempfile
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from pathlib import Path
from threading import Thread

from orchestrator.config.model import SweepConfig
from orchestrator.console.terminal import Terminal
from orchestrator.sweep.earlier_run import pinned
from orchestrator.sweep.events import EventLog, Observers
from orchestrator.trackers import registry
from trials.errors import InputError
from trials.ledger.lease import acquire
from trials.ledger.storage import anchored, check_store, exists, is_local, local, refuse_link, root, set_aside


def drive(
    config: SweepConfig, storage: str | Path, address: str | None, console: Terminal, events: str | None = None
) -> int | None:
    """Runs what is left of the sweep; returns how much of it was not run because somebody stopped it."""
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    if address is not None and not _on_loopback(address):  # Ray reads it when it is imported; launch's default is 0
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "1")
    place = root(storage)
    if is_local(place):
        place = place.resolve()  # workers have folders of their own
    check_store(place)
    folder = refuse_link(place / config.name)
    refuse_link(place / "ledger")
    registry.check(config.trackers, folder)
    config = pinned(config, place)
    known = exists(folder / "sweep.yaml")
    with ExitStack() as held:
        log = [EventLog(local(events, "--events"))] if events else []
        if not known:  # a sweep whose inputs cannot be had leaves nothing behind
            held.enter_context(_started(config, address, console))
        from orchestrator.console.progress import Progress, duration, to_run
        from orchestrator.sweep.controller import SweepController

        progress = Progress(console)
        if config.search.study == "sqlite":
            held.enter_context(_only_driver(folder))
        observers = Observers([progress, *log, *registry.make(config.trackers, config.name, folder)])
        held.callback(observers.close)
        sweep = SweepController.open(config, place, observers, progress.say)
        if sweep.failed is not None:
            raise sweep.failed
        if sweep.over or sweep.state.unfinished == 0:
            console.print(f"{config.name}: all {sum(sweep.counts.values())} trials are done")
            return 0
        if known:
            held.enter_context(_started(config, address, console))
        from orchestrator.cluster import prefetch, runner

        prefetch.prestage(config, progress.say)
        slots = runner.Slots(config.resources)
        console.print(f"{config.name}: {to_run(sweep)}{slots}")
        gc.freeze()
        gc.enable()  # and not before: little but imports has been made
        Thread(target=_import_what_comes_last, daemon=True).start()
        with runner.interruptible(sweep, progress.say), sweep.going(), progress.watching(sweep):
            runner.run(sweep, place if is_local(place) else str(place), config.hub_mirror, slots)
        console.print(f"{config.name}: {duration(progress.elapsed)}")
        return (1 if sweep.state.unfinished is None else sweep.state.unfinished) if sweep.stopping else 0


@contextmanager
def _started(config: SweepConfig, address: str | None, console: Terminal) -> Iterator[None]:
    """Ray; and, while it starts, which takes other processes than this one, the inputs checked."""
    console.print("checking the model, the data and the tasks ...")
    gc.disable()  # as in a worker: what is imported stays, and to look through it as it comes takes a tenth of the time
    # torch first, in this thread: loaded by another one while Ray starts in this one, it crashes now and then
    import torch  # noqa: F401

    from orchestrator.cluster import connect, runtime_env

    checked: Future[list[str]] = Future()
    Thread(target=_check, args=(config, checked), daemon=True).start()  # Ray wants the main thread
    try:
        with connect.connected(address, config.resources, runtime_env.runtime_env() if address else {}):
            for note in checked.result():
                console.print(f"note: {note}", markup=False, soft_wrap=True)
            yield
    finally:
        gc.enable()


def _check(config: SweepConfig, checked: Future[list[str]]) -> None:
    try:
        from orchestrator.cluster import prefetch, runner  # noqa: F401  # which is wanted next and takes seconds to import
        from orchestrator.preflight import check_inputs

        checked.set_result(check_inputs(config))
    except BaseException as error:  # noqa: BLE001  # raised again where it is waited for
        checked.set_exception(error)


def _import_what_comes_last() -> None:
    """A second, which a driver has while its trials run."""
    import analysis.export.files
    import analysis.report.build  # noqa: F401


def _on_loopback(address: str) -> bool:
    """Whether the cluster listens on loopback alone, where a driver with this machine's own address would not find it."""
    current = Path(tempfile.gettempdir()) / "ray" / "ray_current_cluster"  # what `ray start` leaves for --address auto
    if address == "auto":
        address = os.environ.get("RAY_ADDRESS") or (current.read_text() if current.exists() else "")
    return address.rpartition(":")[0].strip("[]") in ("127.0.0.1", "localhost", "::1")


@contextmanager
def _only_driver(folder: Path) -> Iterator[None]:
    """Holds the sweep: with sqlite a second driver would take the trials of the first for abandoned ones."""
    refused = InputError(
        f"{folder}: this sweep is being run already; wait for that command or stop it "
        "(several commands share a sweep with search.study: journal or postgresql://...)"
    )
    if not is_local(folder):  # the driver that died on another machine is taken for dead after a minute
        lease = acquire(folder / "driver")
        if lease is None:
            raise refused
        with lease:
            yield
        return
    lock = refuse_link(folder / ".driver")
    if lock.exists() and not lock.is_file():
        set_aside(lock)
    with anchored(folder, 1) as place:
        # opened without following a link or waiting for a pipe, and never truncated: it is locked, not written
        handle = os.open(place / ".driver", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise refused from None
        yield
    finally:
        os.close(handle)
