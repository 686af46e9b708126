"""Checks of a sweep's inputs before it starts: models, layers, sources, tasks."""

from collections.abc import Callable

from orchestrator.config.model import SweepConfig
from orchestrator.planning.space_points import corners
from trials.hub.hub import Hub
from trials.models import layout
from trials.spec import Base

INPUTS = ("data.", "base.", "eval.")
"""Prefixes of the settings on which a trial's inputs depend."""


def check_inputs(config: SweepConfig) -> list[str]:
    """Reads data and layouts, no weights. Returns notes for the user, a line each.

    Raises InputError for a model, source or task that is missing, for a source with too few rows, and for a base that cannot
    be trained as the config says.
    """
    from trials.data.survey import Survey
    from trials.preflight import check
    from trials.tasks.tasks import Tasks

    hub = Hub(config.hub_mirror)
    notes = layout_notes(config, hub, layout.of)
    tasks, survey = Tasks(hub), Survey(hub)
    for _, spec in corners(config, INPUTS):
        check(spec, hub, tasks, survey)
    return notes


def layout_notes(
    config: SweepConfig, hub: Hub, find: Callable[[Base, Hub], tuple[layout.Layout, layout.Tokens] | None]
) -> list[str]:
    """A line each on layers that stay in 16 bits or get no adapter; bases that `find` does not know are left out.

    Raises InputError for a base that cannot be trained as the config says.
    """
    notes: dict[str, None] = {}
    for _, spec in corners(config, ("base.", "lora.target_modules", "lora.layers", "data.max_length")):
        if found := find(spec.base, hub):
            notes |= dict.fromkeys(layout.check(spec, found))
    return list(notes)
