"""Leases: one holder at a time, whoever dies, sleeps or has a wrong clock. Processes are real, and so is the S3 server."""

import json
import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest

from trials.ledger import lease as leases
from trials.ledger import storage
from trials.ledger.lease import BEAT, EXPIRY, Watch, acquire, held
from trials.ledger.record import Ledger

SPAWN = multiprocessing.get_context("spawn")


class Clock:
    """A monotonic clock that a test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def watch(clock) -> Watch:
    return Watch(clock)


def forge(folder: Path, number: int = 1, **changes) -> None:
    """A lease of a process on another host."""
    content = {"holder": "somebody", "host": "another", "pid": 1, "started": 1, "beat": 0} | changes
    storage.write_text(folder / f"lease.{number}.json", json.dumps(content))


def holder(folder: Path):
    """A process that holds the folder's lease, and the pipe on which it says so, and later that it has lost it."""
    here, there = SPAWN.Pipe()
    process = SPAWN.Process(target=_hold, args=(folder, there))
    process.start()
    assert here.poll(60) and here.recv() == "held"
    return process, here


def _hold(folder: Path, pipe) -> None:
    leases.BEAT = 0.05
    lease = acquire(folder, Watch())
    pipe.send("held" if lease else "not held")
    while lease and not lease.lost:
        time.sleep(0.01)
    lease.release()
    pipe.send("lost")


def _race(folder: Path, start, rounds: int, won) -> None:
    watch = Watch()
    for number in range(rounds):
        start.wait(60)
        lease = acquire(folder, watch)
        won.put((number, lease is not None))
        start.wait(60)  # nobody lets go before everybody has tried
        if lease:
            lease.release()


def test_exactly_one_of_racing_processes_gets_the_lease(place):
    racers, rounds = 3, 15
    start, won = SPAWN.Barrier(racers), SPAWN.Queue()
    processes = [SPAWN.Process(target=_race, args=(place, start, rounds, won)) for _ in range(racers)]
    for process in processes:
        process.start()
    outcomes = [won.get(timeout=100) for _ in range(racers * rounds)]
    for process in processes:
        process.join(60)
    assert sorted(number for number, got in outcomes if got) == list(range(rounds))
    assert storage.names(place) == [f"lease.{rounds}.json"]


def test_lease_is_held_until_release(place, watch):
    assert not held(place, watch)
    with acquire(place, watch) as lease:
        assert held(place, watch)
        assert acquire(place, watch) is None
        assert not lease.lost
    assert not held(place, watch)
    assert not lease.renew()
    with acquire(place, watch) as second:
        assert second.number == 2
        lease.release()
        assert held(place, watch)


@pytest.mark.parametrize("reaped", [True, False])
def test_killed_holder_on_the_same_host_loses_the_lease_at_once(place, watch, reaped):
    process, _ = holder(place)
    assert acquire(place, watch) is None
    process.kill()
    if reaped:
        process.join(60)
    else:
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # a zombie: its pid still has an entry
    assert not held(place, watch)
    with acquire(place, watch) as lease:
        assert lease.number == 2
        assert storage.names(place) == ["lease.2.json"]
    process.join(60)


def test_reused_pid_is_not_the_holder(place, watch):
    forge(place, host=leases._host(), pid=os.getpid(), started=leases._started(os.getpid()))
    assert held(place, watch)
    forge(place, host=leases._host(), pid=os.getpid(), started=leases._started(os.getpid()) - 1)
    assert not held(place, watch)


def test_remote_holder_dies_after_expiry_on_the_observers_clock(place, watch, clock):
    forge(place)
    assert held(place, watch)
    clock.now += EXPIRY - 1
    assert acquire(place, watch) is None
    forge(place, beat=1)
    assert held(place, watch)
    clock.now += EXPIRY - 1
    assert held(place, watch)
    clock.now += 1
    assert not held(place, watch)
    with acquire(place, watch) as lease:
        assert lease.number == 2


def test_new_observer_waits_its_own_expiry(place, watch, clock):
    forge(place)
    assert held(place, watch)
    clock.now += EXPIRY
    assert not held(place, watch)
    assert held(place, Watch(clock))


def test_clock_jump_has_no_effect(tmp_path, monkeypatch):
    """Neither the time of day nor a file's time is looked at: not when a lease is taken, renewed, lost or watched."""
    watch = Watch()
    with acquire(tmp_path / "mine", watch) as lease:
        for number, wrong in enumerate((1.0, 4e9, 2.0)):
            forge(tmp_path / f"{number}")
            assert held(tmp_path / f"{number}", watch)
            monkeypatch.setattr(time, "time", lambda wrong=wrong: wrong)
            monkeypatch.setattr(time, "time_ns", lambda wrong=wrong: int(wrong * 1e9))
            for path in (lease.path, tmp_path / f"{number}" / "lease.1.json"):
                os.utime(path, (wrong, wrong))
            assert held(tmp_path / f"{number}", watch)
            assert held(tmp_path / "mine", watch)
            assert not lease.lost and lease.renew() and not lease.lost


def test_holder_loses_its_lease_while_suspended(place, watch, clock):
    process, pipe = holder(place)
    os.kill(process.pid, signal.SIGSTOP)
    os.waitid(os.P_PID, process.pid, os.WSTOPPED)
    try:
        assert held(place, watch)
        clock.now += EXPIRY
        with acquire(place, watch) as lease:
            assert not pipe.poll()
            os.kill(process.pid, signal.SIGCONT)
            assert pipe.poll(60) and pipe.recv() == "lost"
            process.join(60)
            assert lease.renew() and not lease.lost and held(place, watch)
    finally:
        process.kill()
        process.join(60)


def test_unrenewable_lease_expires_before_takeover(tmp_path, watch, clock, monkeypatch):
    others = Watch(clock)
    monkeypatch.setattr(leases, "_clock", clock)
    with acquire(tmp_path, watch) as lease:
        monkeypatch.setattr(leases, "_ended", lambda holder: False)  # as seen from another host
        assert held(tmp_path, others)
        clock.now += EXPIRY - BEAT
        assert not lease.lost
        clock.now += 1
        assert lease.lost and held(tmp_path, others)
        assert lease.renew()
        assert not lease.lost
        clock.now += EXPIRY
        assert held(tmp_path, others)


def test_full_disk_ends_neither_renewal_nor_release(tmp_path, watch, monkeypatch):
    monkeypatch.setattr(leases, "BEAT", 0.01)
    lease, write, failed = acquire(tmp_path, watch), storage.write_text, []

    def full(path, text):
        failed.append(path)
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(storage, "write_text", full)
    while len(failed) < 3:
        time.sleep(0.01)
    lease.release()
    monkeypatch.setattr(storage, "write_text", write)
    assert not held(tmp_path, watch)  # a shorter text has room in its place


@pytest.mark.parametrize("content", [b"", b'{"holder"', b"[]", b"\xff", b'{"pid": "x", "host": 3}'])
def test_unreadable_lease_file_is_held_until_it_expires(place, watch, clock, content):
    storage.replace_file(place / "lease.7.json", lambda path: path.write_bytes(content))
    assert held(place, watch)
    clock.now += EXPIRY
    with acquire(place, watch) as lease:
        assert lease.number == 8


def test_observer_that_slept_before_its_takeover_gets_no_lease(tmp_path, watch, monkeypatch):
    forge(tmp_path, number=5)
    monkeypatch.setattr(leases, "_standing", lambda folder, watch: (1, False))
    assert acquire(tmp_path, watch) is None
    assert storage.names(tmp_path) == ["lease.5.json"]


def test_creation_with_a_lost_answer_still_holds_the_lease(tmp_path, watch, monkeypatch):
    create = storage.create
    monkeypatch.setattr(storage, "create", lambda path, text: create(path, text) and False)
    assert acquire(tmp_path, watch) is not None


def test_ledger_gives_a_key_to_one_process_at_a_time(place):
    mine, theirs = Ledger(place), Ledger(place)
    with mine.lease("a" * 16):
        assert theirs.lease("a" * 16) is None
        assert theirs.held("a" * 16)
        assert not theirs.held("b" * 16)
    assert not theirs.held("a" * 16)
    assert list(mine) == []


def test_reclaimed_lease_is_free_for_a_new_observer(place, clock, monkeypatch):
    monkeypatch.setattr(leases._process, "clock", clock)
    ledger = Ledger(place)
    forge(ledger.folder("k"))
    assert not ledger.reclaim("k")
    clock.now += EXPIRY - 1
    assert not ledger.reclaim("k")
    clock.now += 2
    assert ledger.reclaim("k")
    assert acquire(ledger.folder("k"), Watch(clock)) is not None
