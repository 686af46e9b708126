"""Trials at points of a space: its grid, random draws, and its corners."""

from collections.abc import Iterator, Mapping
from itertools import islice
from random import Random
from typing import Any

from orchestrator.config.model import SweepConfig
from orchestrator.config.parameters import Categorical, Int
from trials.spec import TrialSpec

_DRAWS = 200  # points that stand for those which a sampler will choose


def grid(config: SweepConfig) -> Iterator[TrialSpec]:
    """The trials of a grid, each once, up to the sweep's budget."""
    specs = (config.spec(point) for point in islice(config.grid(), config.budget))
    yield from {spec.key: spec for spec in specs}.values()


def draws(config: SweepConfig) -> Iterator[TrialSpec]:
    """Trials at points drawn evenly from the space, the same ones at every call."""
    random = Random(0)
    for _ in range(_DRAWS):
        try:
            yield config.spec(config.draw(random))
        except ValueError:  # settings that contradict each other
            continue


def corners(
    config: SweepConfig, prefixes: tuple[str, ...], fixed: Mapping[str, Any] | None = None
) -> Iterator[tuple[dict[str, Any], TrialSpec]]:
    """Trials at the extremes of the searched settings under `prefixes`, with these settings. `fixed` ones keep their value.

    They are few. Together they need every base and task of the space, and the most rows of every source.
    """
    samples = config.space.get("data.samples")
    most = {"data.samples": max(samples.extremes())} if isinstance(samples, Categorical | Int) else {}
    seen = set()
    for settings in config.corners(prefixes, {**most, **(fixed or {})}):
        spec = config.spec(settings)
        if spec.key not in seen:
            seen.add(spec.key)
            yield settings, spec
