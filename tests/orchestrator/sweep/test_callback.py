"""A user's function gets the end of each trial, in order; one that raises stops the sweep."""

import threading

import pytest

from orchestrator.sweep.callback import ENDS, OnTrial
from orchestrator.sweep.events import Event


def test_function_gets_ends_only_and_all_of_them():
    seen = []
    observer = OnTrial(lambda event: seen.append((event.event, event.number)))
    for number in range(100):
        observer(Event("trial_started", "s", number=number))
        observer(Event(ENDS[number % 3], "s", number=number))
    observer.close()
    observer.close()
    assert seen == [(ENDS[number % 3], number) for number in range(100)]
    observer.check()


def test_function_that_raises_stops_the_sweep_and_is_called_no_more():
    calls, stopped = [], []

    def broken(event):
        calls.append(event)
        raise KeyError("mine")

    observer = OnTrial(broken)
    observer.stop = lambda: stopped.append(True)
    for number in range(5):
        observer(Event("trial_finished", "s", number=number))
    observer.close()
    assert (len(calls), stopped) == (1, [True])
    with pytest.raises(KeyError, match="mine"):
        observer.check()


def test_end_of_an_interrupted_sweep_waits_for_no_function():
    calls, begun, free = [], threading.Event(), threading.Event()

    def slow(event):
        calls.append(event.number)
        begun.set()
        free.wait()

    observer = OnTrial(slow)
    for number in range(3):
        observer(Event("trial_finished", "s", number=number))
    assert begun.wait(30)
    observer.drop()
    observer.close()
    free.set()
    observer._thread.join()
    assert calls == [0]


def test_interruption_while_the_function_has_its_events_drops_the_others(monkeypatch):
    def interrupted():
        raise KeyboardInterrupt

    observer = OnTrial(lambda event: None)
    with monkeypatch.context() as patched:
        patched.setattr(observer._thread, "join", interrupted)
        with pytest.raises(KeyboardInterrupt):
            observer.close()
        observer.close()  # once more, by whoever has made it
