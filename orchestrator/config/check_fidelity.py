"""Checks of `search.multi_fidelity`: what it cannot be combined with."""

from collections.abc import Iterator

from analysis.metrics.names import LEARNING, parse_constraint
from orchestrator.config import racing
from orchestrator.config.model import SweepConfig
from trials.errors import InputError
from trials.explain import Problem


def problems(config: SweepConfig) -> Iterator[Problem]:
    if config.search.multi_fidelity:
        for problem in _problems(config):
            yield ("search", "multi_fidelity"), f"search.multi_fidelity: {problem}"


def _problems(config: SweepConfig) -> Iterator[str]:
    search = config.search
    if config.sampler != "gp":
        yield f"it needs the Gaussian process that weighs a paused trial, not {config.sampler}; give search.sampler: gp"
    if search.replicates > 1:
        yield "a trial is looked at by itself, so it needs search.replicates: 1"
    if config.derive.points()[1:]:
        yield "points derived from a trial would be stopped with it, unmeasured; leave out `derive`, or multi_fidelity"
    if config.resources.trials_per_pass > 1:
        yield "a trial pauses by itself, so it needs resources.trials_per_pass: 1"
    if "unsloth" in _values(config, "train.backend", config.train.backend):
        yield "Unsloth's process returns only the end of a training; use train.backend transformers"
    metrics = [*(one.metric for one in search.objectives), *_constrained(config)]
    if any(metric.partition(".")[0] == LEARNING for metric in metrics):
        yield f"a stopped trial has no metrics of {LEARNING}, which are measured at its end; leave them out of the search"
    yield from racing.apart(config, metrics)


def _constrained(config: SweepConfig) -> Iterator[str]:
    for text in config.search.constraints:
        try:
            yield parse_constraint(text).metric
        except InputError:  # check_search says what is wrong with it
            continue


def _values(config: SweepConfig, path: str, own: object) -> list[object]:
    """The values that a setting can take."""
    searched = [axis for axis in config.axes if path in axis.paths]
    if not searched:
        return [own]
    return [point[path] for axis in searched for point in axis.points() or () if path in point]
