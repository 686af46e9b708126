"""Checks of `data`: the names of sources."""

from collections.abc import Iterator

from orchestrator.config.model import SweepConfig
from trials.errors import InputError
from trials.explain import Place, Problem
from trials.hub.hub import find_source


def problems(config: SweepConfig) -> Iterator[Problem]:
    named: list[tuple[Place, str]] = [(("data", "mix", name), name) for name in config.data.mix]
    if config.data.replay.source is not None:
        named.append((("data", "replay", "source"), config.data.replay.source))
    for place, name in named:
        try:
            find_source(config.data, name)
        except InputError as error:
            yield place, str(error)
