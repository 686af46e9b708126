"""Checks of a sweep's inputs before it starts: models, layers, sources, tasks."""

from collections.abc import Callable, Collection
from typing import TYPE_CHECKING

from analysis.metrics.definitions import ALL_KINDS, KINDS, PAIRED_KINDS
from analysis.metrics.names import parse_constraint, split_metric
from orchestrator.config.model import SweepConfig
from orchestrator.planning.space_points import corners
from trials.errors import InputError
from trials.evaluation.engine.vllm_python import check_settings, python, wanted
from trials.hub.hub import Hub
from trials.models import layout
from trials.spec import Base, Evaluation, TrialSpec

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
    check_backend(config)
    notes = [*chat_warnings(config), *engine_notes(config), *layout_notes(config, hub, layout.of)]
    tasks, survey = Tasks(hub), Survey(hub)
    for settings, spec in corners(config, INPUTS):
        check_metrics(config, spec, tasks)  # first: it reads no data
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


def check_backend(config: SweepConfig) -> None:
    """Raises InputError for a setting, a searched one too, that train.backend does not support."""
    for _, spec in corners(config, _OF_BACKEND):
        if spec.train.backend == "unsloth" and not spec.is_baseline:
            from trials.training import unsloth  # imports the Trainer

            unsloth.check_settings(spec)


def engine_notes(config: SweepConfig) -> list[str]:
    """A line for each role whose responses are vLLM's. Raises InputError for an adapter that vLLM does not run."""
    for _, spec in corners(config, ("eval.", "lora.use_dora", "lora.method")):
        check_settings(spec)
    roles = {role for _, spec in corners(config, ("eval.",)) for role, one in spec.eval.items() if one.engine == "vllm"}
    return [
        f"eval.{role}.engine: vllm: the responses are vLLM's, which rounds otherwise: the scores are not stock lm-eval's, and "
        "the baseline is measured with it too"
        for role in sorted(roles)
    ]


def check_vllm(config: SweepConfig) -> None:
    """Raises InputError where a role wants vLLM and this machine has none."""
    if any(wanted(spec) for _, spec in corners(config, ("eval.",))):
        python()


def check_metrics(config: SweepConfig, spec: TrialSpec, tasks: "Tasks") -> None:
    """Raises InputError for an objective or a constraint that no task of its role can have, as far as their YAML says."""
    search = config.search
    wanted = [(f"objectives.{i}", objective.metric) for i, objective in enumerate(search.objectives)]
    wanted += [(f"constraints.{i}", parse_constraint(text).metric) for i, text in enumerate(search.constraints)]
    for place, metric in wanted:
        role, name = split_metric(metric)
        if role not in spec.eval or name in KINDS:
            continue  # `learning`, or a metric of the score, which every task has
        evaluation = spec.eval[role]
        types = tasks.output_types(evaluation)
        if types is not None and name not in (defined := _defined(evaluation, types)):
            raise InputError(
                f"search.{place}: {metric} is never defined, since eval.{role} has tasks of output_type {', '.join(types)} "
                f"({', '.join(evaluation.tasks)}); there are {', '.join(f'{role}.{one}' for one in defined)}"
            )


def _defined(evaluation: Evaluation, types: Collection[str]) -> list[str]:
    """Names of the metrics that some task of these output types can have."""
    from trials.evaluation.documents import has_column

    def made_of(columns: tuple[str, ...]) -> bool:
        return any(all(has_column(evaluation, one, column) for column in columns) for one in types)

    return [name for name, kind in ALL_KINDS.items() if made_of(kind.columns)]


def check_directions(config: SweepConfig, spec: TrialSpec, tasks: "Tasks", roles: Collection[str]) -> None:
    """Raises InputError for a search that would make the score of one of the roles worse: an error rate or a perplexity larger,
    or a share of right answers smaller; and for documents lost and won where they are neither right nor wrong."""
    from trials.tasks.measures import measure

    for name in config.criteria.metrics:
        role, kind = split_metric(name)
        if kind in PAIRED_KINDS and role in roles:
            metric = spec.eval[role].metric
            scales = [measure(one, metric).scale for one in tasks.build(spec.eval[role]).values()]
            if not all(scale.form == "mean" and scale.share for scale in scales):
                raise InputError(
                    f"search: {name} counts documents that are right or wrong, and {metric} of eval.{role} is no share; take "
                    f"{role}.drop or {role}.gain, which every task has"
                )

    for i, objective in enumerate(config.search.objectives):
        role, kind = split_metric(objective.metric)
        if kind != "value" or role not in roles:
            continue
        metric = spec.eval[role].metric
        higher = all(measure(one, metric).scale.higher_is_better for one in tasks.build(spec.eval[role]).values())
        better = "maximize" if higher else "minimize"
        if objective.direction != better:
            raise InputError(
                f"search.objectives.{i}: {metric} of eval.{role} is better when {'higher' if higher else 'lower'}; write "
                f"{objective.metric} with direction: {better}, or {role}.gain, which is better when higher for every metric"
            )


_OF_BACKEND = (
    "base.",
    *(f"lora.{name}" for name in ("method", "use_dora", "init")),
    *(f"train.{name}" for name in ("backend", "loss", "kl", "stop_kl")),
)
"""Settings that a backend may lack."""
_OF_LAYERS = (
    *("base.", "data.max_length"),
    *(f"lora.{name}" for name in ("target_modules", "layers", "method", "rank", "block_size")),
)
"""Settings that decide whether a base can be trained."""


def layout_notes(
    config: SweepConfig, hub: Hub, find: Callable[[Base, Hub], tuple[layout.Layout, layout.Tokens] | None]
) -> list[str]:
    """A line each on layers that stay in 16 bits or get no adapter; bases that `find` does not know are left out.

    Raises InputError for a base that cannot be trained as the config says.
    """
    notes: dict[str, None] = {}
    sizes = [axis for axis in config.axes if axis.paths == ("lora.block_size",)]
    for size in next((axis.points() for axis in sizes), None) or [{}]:  # all, not the ends alone: one has to divide
        for _, spec in corners(config, _OF_LAYERS, size):
            if found := find(spec.base, hub):
                notes |= dict.fromkeys(layout.check(spec, found))
    return list(notes)
