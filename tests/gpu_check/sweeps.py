"""Parts that run under Ray: several trials on one GPU, and a sweep that loses a worker and its driver."""

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import torch
import yaml

from tests.factories.ray_workers import runs_a_trial
from tests.gpu_check.finding import Finding, World
from trials.ledger.record import Ledger, TrialRecord

_HUNG = 480.0  # seconds


def fractions(world: World) -> Iterator[Finding]:
    """Four trials at a time on one GPU, by `gpus_per_trial`, against one at a time: the same losses."""
    seconds, losses = {}, {}
    for name, share in (("apart", 1.0), ("together", 0.25)):
        config, began = world.config(f"fractions-{name}", 4, share), time.perf_counter()
        _finished(_started(world, config))
        seconds[name] = time.perf_counter() - began
        losses[name] = {(r.spec.lora.rank, r.spec.train.learning_rate): r.losses for r in _records(world, config)}
    yield Finding("trials that are complete", float(len(losses["together"])), least=4.0)
    yield from _on_the_gpu(_records(world, config))
    yield Finding("seconds together by seconds apart", seconds["together"] / seconds["apart"])
    pairs = ((losses["apart"][key], losses["together"][key]) for key in losses["apart"])
    gaps = [abs(one - other) for apart, together in pairs for (_, one), (_, other) in zip(apart, together, strict=True)]
    yield Finding("losses together and apart, largest difference", max(gaps), 1e-3)


def killed(world: World) -> Iterator[Finding]:
    """A sweep of twelve trials whose worker, then whose driver is killed in mid-trial, and a resume."""
    config = world.config("killed", 12, 1.0)
    driver = _started(world, config)
    worker = _waited(driver, lambda: next((p for p in _children(driver) if _at_work(p)), None))
    worker.kill()
    done = _waited(driver, lambda: len(_records(world, config)) or None)
    _waited(driver, lambda: next((p for p in _children(driver) if _at_work(p)), None))
    driver.kill()
    driver.wait()
    before = {record.key: record for record in _records(world, config)}
    _finished(_started(world, config))
    after = {record.key: record for record in _records(world, config)}
    yield Finding("trials complete when the driver was killed", float(done))
    yield Finding("trials that are complete in the end", float(len(after)), 12.0, 12.0)
    yield from _on_the_gpu(list(after.values()))
    yield Finding("complete trials that ran again", float(sum(after[key] != one for key, one in before.items())), 0.0)


def _on_the_gpu(records: list[TrialRecord]) -> Iterator[Finding]:
    """Where there is one: a sweep for which Ray finds none runs on the CPU."""
    if torch.cuda.is_available():
        count = sum(bool(record.hardware.get("gpu")) for record in records)
        yield Finding("trials that did not run on the GPU", float(len(records) - count), 0.0)


def _command(world: World, config: dict[str, Any]) -> list[str]:
    path = world.folder / f"{config['name']}.yaml"
    path.write_text(yaml.safe_dump(config))
    return [sys.executable, "-m", "orchestrator.cli", "run", str(path), "--storage", str(_storage(world, config))]


def _storage(world: World, config: dict[str, Any]) -> Path:
    return world.folder / f"runs-{config['name']}"


def _started(world: World, config: dict[str, Any]) -> subprocess.Popen[str]:
    with (world.folder / f"{config['name']}.log").open("a") as log:
        return subprocess.Popen(_command(world, config), stdout=log, stderr=subprocess.STDOUT, text=True)


def _finished(driver: subprocess.Popen[str]) -> None:
    if driver.wait():
        raise RuntimeError(f"{' '.join(map(str, driver.args))} ended with {driver.returncode}")  # type: ignore[arg-type]


def _records(world: World, config: dict[str, Any]) -> list[TrialRecord]:
    """Complete trials, without the baseline."""
    ledger = Ledger(_storage(world, config))
    found = (ledger.read(key) for key in ledger) if _storage(world, config).exists() else ()
    return [record for record in found if record and record.state == "complete" and not record.spec.is_baseline]


def _children(driver: subprocess.Popen[str]) -> list[psutil.Process]:
    try:
        return psutil.Process(driver.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def _at_work(process: psutil.Process) -> bool:
    try:
        return runs_a_trial(process)
    except psutil.Error:
        return False


def _waited(driver: subprocess.Popen[str], find: Any) -> Any:
    """What `find` finds, once it finds anything; RuntimeError if the driver ends before, or nothing is found for long."""
    since = time.monotonic()
    while (found := find()) is None:
        if driver.poll() is not None:
            raise RuntimeError(f"the driver ended with {driver.returncode} before there was anything to kill")
        if time.monotonic() - since > _HUNG:
            driver.kill()
            raise RuntimeError(f"nothing to kill for {_HUNG:g} s")
        time.sleep(0.05)
    return found
