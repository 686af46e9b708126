"""`make chaos`: a 24-trial sweep on the real Ray is SIGKILLed ten times and resumed, and must lose and repeat nothing.

Driver, worker and raylet are killed in turns, each in the middle of a trial and once a number of records is there: how fast the
machine is changes nothing. Afterwards the study holds 24 complete trials, the ledger 24 records and the baseline's, no record
was ever written twice, and the front is that of a run that nobody disturbed.
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import optuna
import psutil
from optuna.trial import TrialState

from tests.factories.ray_workers import runs_a_trial

CONFIG = Path(__file__).parent / "chaos.yaml"
TRIALS = 24
_HUNG = 900.0  # seconds without a lease, a record or a line of output
VICTIMS = ("driver", "worker", "raylet")


def command(storage: Path) -> list[str]:
    return [sys.executable, "-m", "orchestrator.cli", "run", str(CONFIG), "--storage", str(storage)]


def start(storage: Path, log: Path) -> subprocess.Popen[bytes]:
    with log.open("ab") as out:
        return subprocess.Popen(command(storage), stdout=out, stderr=out)


def victim(driver: int, kind: str) -> psutil.Process | None:
    """The process to kill; None while there is none of this kind."""
    try:
        process = psutil.Process(driver)
        if kind == "driver":
            return process
        is_victim = _is_raylet if kind == "raylet" else runs_a_trial
        found = [child for child in process.children(recursive=True) if _holds(is_victim, child)]
    except psutil.NoSuchProcess:
        return None
    return random.choice(found) if found else None


def _is_raylet(process: psutil.Process) -> bool:
    return " ".join(process.cmdline()[:1]).endswith("/raylet")


def _holds(question: Callable[[psutil.Process], bool], process: psutil.Process) -> bool:
    try:
        return question(process)
    except psutil.Error:  # it has just ended
        return False


def records(storage: Path) -> dict[str, tuple[str, int]]:
    """Key -> (when it finished, the file's inode) of every complete record: a record that is written again changes both."""
    found = {}
    for path in (storage / "ledger").glob("*/record.json"):
        record = json.loads(path.read_text())
        if record["state"] == "complete":
            found[path.parent.name] = (record["finished"], path.stat().st_ino)
    return found


def leases(storage: Path) -> set[Path]:
    """Of trials that have no record yet. A trial that runs again has a new one, under the next number."""
    found = (storage / "ledger").glob("*/lease.*.json")
    return {lease for lease in found if not (lease.parent / "record.json").exists()}


def disturb(storage: Path, log: Path, kills: int) -> list[str]:
    """Kills and resumes until the sweep is done; returns what went wrong."""
    problems: list[str] = []
    seen: dict[str, tuple[str, int]] = {}
    driver = start(storage, log)
    for number in range(kills):
        kind, before = VICTIMS[number % len(VICTIMS)], leases(storage)
        wanted = max(number * (TRIALS // (kills + 2)) - random.randint(0, 1), 0)
        for _ in watched(driver, storage, log):
            target = victim(driver.pid, kind)
            if target is not None and leases(storage) - before and len(records(storage)) >= wanted:
                target.kill()
                break
        else:
            return [*problems, f"the driver ended with {driver.wait()} after {number} of {kills} kills; {log} says why"]
        print(f"  killed {kind} {target.pid} in mid-trial, {len(records(storage))} records", flush=True)
        if kind != "worker":
            _gone(driver)
            driver = start(storage, log)
        now = records(storage)
        problems += rewritten(seen, now)
        seen |= now
    for _ in watched(driver, storage, log):
        pass
    if driver.wait() != 0:
        problems.append(f"the last driver ended with {driver.returncode}; {log} says why")
    return problems + rewritten(seen, records(storage))


def watched(driver: subprocess.Popen[bytes], storage: Path, log: Path) -> Iterator[None]:
    """Again and again until the driver has ended. It is killed when nothing has changed for as long as nothing here takes."""
    last, since = None, time.monotonic()
    while driver.poll() is None:
        now = (len(records(storage)), leases(storage), log.stat().st_size)
        if now != last:
            last, since = now, time.monotonic()
        elif time.monotonic() - since > _HUNG:
            driver.kill()
        yield
        time.sleep(0.1)


def _gone(driver: subprocess.Popen[bytes]) -> None:
    """Waits for the end of a driver whose raylet (or which itself) was killed."""
    try:
        driver.wait(timeout=60)
    except subprocess.TimeoutExpired:
        print("  the driver outlived its raylet by a minute and is killed as well")
        driver.kill()
        driver.wait()


def rewritten(before: dict[str, tuple[str, int]], now: dict[str, tuple[str, int]]) -> list[str]:
    return [f"{key}: its complete record changed or went" for key, stamp in before.items() if now.get(key) != stamp]


def check(storage: Path) -> list[str]:
    study = optuna.load_study(study_name="chaos", storage=f"sqlite:///{storage / 'chaos' / 'study.db'}")
    states = [trial.state for trial in study.get_trials(deepcopy=False)]
    problems = []
    if states != [TrialState.COMPLETE] * TRIALS:
        problems.append(
            f"{storage}: the study holds {[(s.name, states.count(s)) for s in set(states)]}, not {TRIALS} complete trials"
        )
    if len(records(storage)) != TRIALS + 1:
        problems.append(f"{storage}: {len(records(storage))} complete records, not {TRIALS} and the baseline's")
    return problems


def front(storage: Path) -> list[dict[str, Any]]:
    return json.loads((storage / "chaos" / "front.json").read_text())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="folder for the two storages, kept; a temporary one when left out")
    options = parser.parse_args()
    random.seed(options.seed)
    with tempfile.TemporaryDirectory(prefix="slimsweep-chaos-") as scratch:
        folder = options.keep or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        print("disturbed:", flush=True)
        problems = [*disturb(folder / "disturbed", folder / "disturbed.log", options.kills), *check(folder / "disturbed")]
        if not problems:
            print("undisturbed:", flush=True)
            subprocess.run(command(folder / "undisturbed"), check=True, stdout=subprocess.DEVNULL)
            problems = check(folder / "undisturbed")
            size = len(front(folder / "undisturbed"))
            if front(folder / "disturbed") != front(folder / "undisturbed"):
                problems.append("the fronts differ")
    for problem in problems:
        print(f"FAILED: {problem}")
    if not problems:
        print(f"{options.kills} kills, {TRIALS} trials complete, none run twice, the same front of {size}")
    return bool(problems)


if __name__ == "__main__":
    sys.exit(main())
