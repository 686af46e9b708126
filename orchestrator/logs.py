"""`slimsweep logs`: the log of a trial, `LEDGER/KEY/log.txt`, while it runs and afterwards."""

import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from analysis.explore.find import find_key
from analysis.results.manifest import Manifest
from orchestrator.console.terminal import Terminal
from trials.errors import InputError
from trials.ledger import storage
from trials.ledger.record import Ledger
from trials.ledger.storage import root
from trials.run import trial_log

_LOCAL_SECONDS, _STORE_SECONDS = 1.0, 10.0  # between two reads of a growing log


def logs(
    key: Annotated[
        str,
        typer.Argument(help="A trial's number (#5), baseline, or a key or its first characters.", show_default=False),
    ],
    folder: Annotated[str, typer.Argument(help="The sweep's folder, such as runs/quickstart.", show_default=False)],
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Goes on while the trial runs.")] = False,
) -> None:
    """Prints a trial's log: its phases, and the warnings and errors of the libraries.

    Example: slimsweep logs "#5" runs/quickstart --follow
    """
    place = root(folder)
    ledger, found = Ledger(place.parent), key_in(place, key)
    out = Terminal(soft_wrap=True)
    with suppress(KeyboardInterrupt):
        for text in followed(ledger, found) if follow else [read(ledger, found)]:
            out.print(text, end="", soft_wrap=True)


def key_in(folder: Path, name: str) -> str:
    """The key that `name` means in the sweep of this folder; InputError where it means none or several."""
    manifest = Manifest.read(folder)
    numbers = {trial.number: trial.keys[0] for trial in manifest.trials if trial.keys}
    if name == "baseline" and len(manifest.baseline_keys) == 1:
        return str(manifest.baseline_keys[0])
    if name == "baseline" and manifest.baseline_keys:
        listed = ", ".join(manifest.baseline_keys)
        raise InputError(f"{manifest.name} has {len(manifest.baseline_keys)} baselines; give the key of one: {listed}")
    keys = [*manifest.baseline_keys, *(key for trial in manifest.trials for key in trial.keys)]
    return find_key(name, manifest.name, numbers, keys)


def read(ledger: Ledger, key: str) -> str:
    """The log; InputError where the trial has none."""
    text = trial_log.read(ledger.folder(key))
    if not text:
        raise _missing(ledger, key)
    return text


def _missing(ledger: Ledger, key: str) -> InputError:
    if ledger.held(key):
        return InputError(f"{key} has no log: it runs, and its log has not been written yet")
    if ledger.read(key) is not None:
        return InputError(f"{key} has no log: it has ended, and its log was not written")
    return InputError(f"{key} has no log: it has not started yet")


def followed(ledger: Ledger, key: str) -> Iterator[str]:
    """The log, and what is appended until the trial has ended; waits for its start. InputError where it ended without a log."""
    shown = ""
    while True:
        running = ledger.held(key)  # before the log is read: what an ending trial wrote last is not missed
        text = trial_log.read(ledger.folder(key))
        if new := appended(shown, text):
            yield new
        shown = text
        # a trial whose worker died has not ended: it is tried again
        if not running and (text.rstrip().endswith(trial_log.END) or ledger.read(key) is not None):
            if not text:
                raise _missing(ledger, key)
            return
        time.sleep(_LOCAL_SECONDS if storage.is_local(ledger.root) else _STORE_SECONDS)


def appended(before: str, now: str) -> str:
    """What `now` has after `before`. The middle of a long log may have been left out meanwhile."""
    if now.startswith(before):
        return now[len(before) :]
    last = before[before.rfind("\n", 0, -1) + 1 :]
    return now.rpartition(last)[2] if last in now else now
