"""The driver of a sweep: checks its inputs, opens its study and runs its trials on Ray. The same call resumes it."""

import errno
import fcntl
import gc
import os
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING

from orchestrator.cluster import limits
from orchestrator.config.model import SweepConfig
from orchestrator.console.terminal import Terminal
from orchestrator.sweep.callback import OnTrial
from orchestrator.sweep.earlier_run import pinned
from orchestrator.sweep.events import Observer, Observers
from orchestrator.trackers import registry
from trials.errors import InputError
from trials.ledger.lease import acquire
from trials.ledger.storage import anchored, check_store, exists, is_local, refuse_link, root, set_aside

if TYPE_CHECKING:
    from orchestrator.console.time_left import Timings


def drive(
    config: SweepConfig, storage: str | Path, address: str | None, console: Terminal, observers: Sequence[Observer] = ()
) -> int | None:
    """Runs the rest of the sweep; returns how many runs are left because the user stopped it."""
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    if address is not None and not _on_loopback(address):  # Ray reads it on import; cluster.connect sets it to 0
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "1")
    place = _place(storage, config.name)
    folder = refuse_link(place / config.name)
    registry.check(config.trackers, folder)
    if address is None:
        limits.check_folder()  # before the inputs are read, which may take a minute
    config = pinned(config, place)
    known = exists(folder / "sweep.yaml")
    with ExitStack() as held:
        if not known:  # bad inputs must end the command before it writes anything
            held.enter_context(_ray_and_checked_inputs(config, address, console))
        from orchestrator.console.progress import Progress, duration, to_run
        from orchestrator.sweep.controller import SweepController
        from orchestrator.sweep.follower import Follower

        progress = Progress(console)
        if config.search.study == "sqlite":
            held.enter_context(_only_driver(folder))
        everybody = Observers([progress, *observers, *registry.make(config.trackers, config.name, folder)])
        held.callback(everybody.close)
        held.push(partial(_drop_if_interrupted, observers))
        sweep = SweepController.open(config, place, everybody, progress.say)
        held.callback(sweep.study.drivers.leave)  # a notebook's process goes on, and would keep what it adopted
        for one in observers:
            if isinstance(one, OnTrial):
                one.stop = sweep.stop
        if sweep.failed is not None:
            raise sweep.failed
        if sweep.over or sweep.state.unfinished == 0:
            if sweep.state.policy.held_back:  # an earlier command ended before it reported them
                with sweep.going():
                    pass
            console.print(f"{config.name}: all {sum(sweep.counts.values())} trials are done")
            return 0
        if known:
            held.enter_context(_ray_and_checked_inputs(config, address, console))
        from orchestrator.cluster import prefetch, runner

        prefetch.prestage(config, progress.say)
        slots = runner.Slots(config.resources)
        console.print(f"{config.name}: {to_run(sweep)}{slots}")
        if config.search.documents == "half":
            console.print("scores are of the searched half of the documents; the report quotes the other half", soft_wrap=True)
        gc.freeze()  # almost every object so far is an import's
        held.callback(gc.unfreeze)  # this process may be a notebook's
        gc.enable()
        Thread(target=_import_exports, daemon=True).start()
        if address is None:  # nobody knows a cluster's machines
            Thread(target=_count, args=(config, progress.timings), daemon=True).start()
        interruptible = runner.interruptible(sweep, progress.say, progress.left)
        with interruptible, sweep.going(), progress.watching(sweep), Follower(sweep).following():
            runner.run(sweep, place if is_local(place) else str(place), config.hub_mirror, slots)
        console.print(f"{config.name}: {duration(progress.elapsed)}")
        return (1 if sweep.state.unfinished is None else sweep.state.unfinished) if sweep.stopping else 0


def _place(storage: str | Path, name: str) -> Path:
    """The storage root, as workers in other working directories find it. InputError where it cannot be one."""
    place = root(storage)
    if is_local(place):
        place = place.resolve()
        for folder in (place / name, place / "ledger"):  # minutes of reading the inputs come before the first write
            there = next(one for one in (folder, *folder.parents) if os.access(one, os.F_OK))
            if there.is_dir() and not os.access(there, os.W_OK | os.X_OK):
                cause = errno.EROFS if os.statvfs(there).f_flag & os.ST_RDONLY else errno.EACCES
                raise InputError(f"storage {place}: {there} cannot be written: {os.strerror(cause)}")
    check_store(place)
    refuse_link(place / "ledger")
    return place


def _drop_if_interrupted(observers: Sequence[Observer], kind: object, error: object, trace: object) -> None:
    """As an exit of a context: the end of an interrupted sweep waits for no function of the user's."""
    for one in observers:
        if isinstance(one, OnTrial) and isinstance(error, KeyboardInterrupt):
            one.drop()


@contextmanager
def _ray_and_checked_inputs(config: SweepConfig, address: str | None, console: Terminal) -> Iterator[None]:
    """Connects to Ray, and checks the inputs while Ray's processes start."""
    console.print("checking the model, the data and the tasks ...")
    gc.disable()  # imported objects stay: collections would take a tenth of the imports' time
    # in this thread, because loading torch in another one while Ray starts here crashes now and then
    import torch  # noqa: F401

    from orchestrator.cluster import connect, runtime_env

    checked: Future[list[str]] = Future()
    Thread(target=_check, args=(config, address, checked), daemon=True).start()  # Ray needs the main thread
    try:
        with ExitStack() as held:
            shipped = held.enter_context(runtime_env.runtime_env(config)) if address else {}
            held.enter_context(connect.connected(address, config.resources, shipped))
            for note in checked.result():
                console.print(f"note: {note}", markup=False, soft_wrap=True)
            yield
    finally:
        gc.enable()


def _check(config: SweepConfig, address: str | None, checked: Future[list[str]]) -> None:
    try:
        from orchestrator.cluster import prefetch, runner  # noqa: F401  # needed next; the import takes seconds
        from orchestrator.preflight import check_inputs, check_vllm

        if address is None:  # a cluster's machines have their own
            check_vllm(config)
        checked.set_result(check_inputs(config))
    except BaseException as error:  # noqa: BLE001  # raised by `result`
        checked.set_exception(error)


def _import_exports() -> None:
    """Takes a second, which the driver has while its trials run."""
    import analysis.export.files
    import analysis.report.build  # noqa: F401


def _count(config: SweepConfig, timings: "Timings") -> None:
    """The time left is the plan's until trials have measured it."""
    from orchestrator.planning.estimate import Estimate

    try:
        timings.counted = Estimate(config, [], None, {}).by_phase()
    except InputError:  # the inputs were checked; what no plan can count stays unknown
        return


def _on_loopback(address: str) -> bool:
    """Whether the cluster listens on loopback alone: a driver with this machine's own address would not reach it."""
    current = Path(tempfile.gettempdir()) / "ray" / "ray_current_cluster"  # `ray start` writes it for --address auto
    if address == "auto":
        address = os.environ.get("RAY_ADDRESS") or (current.read_text() if current.exists() else "")
    return address.rpartition(":")[0].strip("[]") in ("127.0.0.1", "localhost", "::1")


@contextmanager
def _only_driver(folder: Path) -> Iterator[None]:
    """Locks the sweep; InputError where another command has it."""
    # with sqlite a second driver would adopt the running trials of the first
    refused = InputError(
        f"{folder}: this sweep is being run already; wait for that command or stop it "
        "(several commands share a sweep with search.study: journal or postgresql://...)"
    )
    if not is_local(folder):  # the lease of a driver that died on another machine expires after a minute
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
        # follows no link, waits for no pipe and truncates nothing: the file is only locked
        handle = os.open(place / ".driver", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise refused from None
        yield
    finally:
        os.close(handle)
