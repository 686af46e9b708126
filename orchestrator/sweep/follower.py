"""Follows the running trials: reads their progress from the ledger and emits an event for each that has moved."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from orchestrator.sweep.controller import SweepController
from trials.ledger import storage, trial_progress

_LOCAL_SECONDS, _STORE_SECONDS = 3.0, 30.0  # between two rounds, as often as workers write
_SHARE = 0.1  # of the time that rounds may take: a store answers thousands of reads in minutes
_EVENTS = 20.0  # a second: a thousand trials would fill gigabytes of event logs in a day


class Follower:
    def __init__(self, sweep: SweepController):
        self._sweep = sweep
        self._interval = _LOCAL_SECONDS if storage.is_local(sweep.folder) else _STORE_SECONDS
        self._seen: dict[str, str] = {}  # by key, when its last known progress was written
        self._over = threading.Event()

    @contextmanager
    def following(self) -> Iterator[None]:
        """Follows within the context, in a thread."""
        thread = threading.Thread(target=self._work, name="follower of trials", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._over.set()
            thread.join()

    def look(self) -> None:
        """One round over the running trials."""
        running = list(self._sweep.running)
        self._seen = {key: self._seen[key] for key in running if key in self._seen}
        for key in running:
            if self._over.is_set():
                return
            found = trial_progress.read(self._sweep.ledger, key)  # not under the sweep's lock: a store may be slow
            if found is not None and found.written != self._seen.get(key):
                self._seen[key] = found.written
                self._sweep.report_progress(key, found)

    def _work(self) -> None:
        wait = self._interval
        while not self._over.wait(wait):
            began = time.monotonic()
            self.look()
            wait = max(self._interval, (time.monotonic() - began) / _SHARE, len(self._seen) / _EVENTS)
