"""Checks of a sweep's inputs before it starts: models, layers, sources, tasks."""

from collections.abc import Callable, Collection
from typing import TYPE_CHECKING

from analysis.metrics.names import split_metric
from orchestrator.config.model import SweepConfig
from orchestrator.planning.space_points import corners
from trials.errors import InputError
from trials.hub.hub import Hub
from trials.models import layout
from trials.spec import Base, TrialSpec

if TYPE_CHECKING:
    from trials.tasks.tasks import Tasks

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
    notes = [*chat_warnings(config), *layout_notes(config, hub, layout.of)]
    tasks, survey = Tasks(hub), Survey(hub)
    for settings, spec in corners(config, INPUTS):
        notes += check(spec, hub, tasks, survey, config.specs(settings)[1:])
        check_directions(config, spec, tasks, spec.eval)
    formats = [f"source {name}: {counts.format}" for name, counts in survey.drawn().items() if counts.format]
    return [*dict.fromkeys(notes), *formats]


def chat_warnings(config: SweepConfig) -> list[str]:
    """A line for each role with a chat template in training or evaluation alone: such scores compare two formats."""
    found: dict[str, None] = {}
    for _, spec in corners(config, ("data.", "eval.")):
        trained = spec.data.template == "chat"
        for role, evaluation in spec.eval.items():
            if spec.is_baseline or trained == bool(evaluation.chat_template):
                continue
            if trained:
                line = (
                    f"eval.{role} does not use the chat template that the training uses (data.template: chat); set "
                    f"eval.{role}.chat_template: true"
                )
            else:
                line = (
                    f"eval.{role} uses the chat template, the training does not (data.template: {spec.data.template}); set "
                    "data.template: chat"
                )
            found[line] = None
    return list(found)


def check_directions(config: SweepConfig, spec: TrialSpec, tasks: "Tasks", roles: Collection[str]) -> None:
    """Raises InputError for a search that would make an error rate or a perplexity of one of the roles larger."""
    from trials.tasks.measures import measure

    for objective in config.search.objectives:
        role, kind = split_metric(objective.metric)
        if kind != "value" or role not in roles or objective.direction != "maximize":
            continue
        evaluation = spec.eval[role]
        if not all(measure(one, evaluation.metric).scale.higher_is_better for one in tasks.build(evaluation).values()):
            raise InputError(
                f"search.objectives: {evaluation.metric} of eval.{role} is better when lower; write {objective.metric} with "
                f"direction: minimize, or {role}.gain, which is better when higher for every metric"
            )


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
