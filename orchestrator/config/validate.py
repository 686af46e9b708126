"""Every problem of a config whose types are right: unknown names, values that no trial takes, contradictions."""

from collections.abc import Iterator

from orchestrator.config import check_data, check_eval, check_fidelity, check_points, check_search, check_space
from orchestrator.config.model import SweepConfig
from trials.explain import Problem


def problems(config: SweepConfig) -> Iterator[Problem]:
    """Every problem with the place in the file that it concerns."""
    yield from check_search.problems(config)
    yield from check_fidelity.problems(config)
    yield from check_eval.problems(config)
    yield from check_data.problems(config)
    structure = list(check_space.problems(config))
    # a point can be tried only in a space whose names and conditions are right
    yield from structure or check_points.problems(config)
