"""Calls a user's function for each trial that ends. A function that raises stops the sweep."""

import queue
import threading
from collections.abc import Callable

from orchestrator.sweep.events import Event

ENDS = ("trial_finished", "trial_failed", "trial_given_up")
"""The events with which a run of a trial ends."""


class OnTrial:
    """An observer of the sweep. The function runs in a thread of its own, in the order of the events: it may be slow."""

    def __init__(self, call: Callable[[Event], object]):
        self.name = "on_trial"
        self.stop: Callable[[], None] = lambda: None
        """Stops the sweep; its driver sets it."""
        self.error: BaseException | None = None
        """What the function has raised. It is not called again."""
        self._call, self._dropped = call, False
        self._queue: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name=self.name, daemon=True)
        self._thread.start()

    def __call__(self, event: Event) -> None:
        if event.event in ENDS:
            self._queue.put(event)

    def _work(self) -> None:
        while (event := self._queue.get()) is not None and not self._dropped:
            try:
                self._call(event)
            except BaseException as error:  # noqa: BLE001  # raised again by `check`, in the caller's thread
                self.error = error
                self.stop()
                return

    def drop(self) -> None:
        """The function gets no more events: the user has interrupted the sweep and waits for its end."""
        self._dropped = True

    def close(self) -> None:
        """Waits until the function has had every event, however slow it is; not at all after `drop` or an interruption."""
        self._queue.put(None)
        try:
            if not self._dropped:
                self._thread.join()
        except KeyboardInterrupt:
            self.drop()
            raise

    def check(self) -> None:
        """Raises what the function has raised."""
        if self.error is not None:
            raise self.error
