"""Whether the trials of a sweep can race (`search.racing`)."""

from collections.abc import Iterable, Iterator

from analysis.metrics.names import joint
from orchestrator.config.model import SweepConfig
from trials.errors import InputError
from trials.spec import Evaluation
from trials.tasks.folder import opened


def obstacles(config: SweepConfig) -> list[str]:
    """Why no trial can be given up while it is evaluated; empty where one can."""
    return list(_obstacles(config))


def by_default(config: SweepConfig) -> bool:
    """Whether a sweep races that does not say so. A grid is asked for each of its points, not for the front alone."""
    return config.search.sampler != "grid" and not obstacles(config)


def _obstacles(config: SweepConfig) -> Iterator[str]:
    if config.search.replicates > 1:
        yield "a trial is judged by itself, so it needs search.replicates: 1"
    if config.derive.points()[1:]:
        yield "points derived from a trial would be given up with it, unmeasured; leave out `derive`, or racing"
    yield from apart(config, [objective.metric for objective in config.search.objectives])


def apart(config: SweepConfig, metrics: Iterable[str]) -> Iterator[str]:
    """Why trials cannot be compared on a part of the documents of these metrics' roles."""
    for metric in joint(metrics := list(metrics)):
        yield f"{metric} is of several roles, whose documents are answered one role after the other; leave it, or this, out"
    for role in dict.fromkeys(metric.partition(".")[0] for metric in metrics):
        evaluation = config.eval.get(role)
        varied = [path for path in config.paths() if path.startswith(f"eval.{role}.")]
        if varied:
            yield f"trials are compared document by document, so {varied[0]} cannot be searched"
        if evaluation is not None and _draws(evaluation):
            yield (
                f"few-shot rows of eval.{role} are drawn per document, so a part of the documents would see other rows than "
                "all of them; give it fewshot: first_n, or shots: 0"
            )


def _draws(evaluation: Evaluation) -> bool:
    """Whether a document's few-shot rows may depend on which documents come before it."""
    if evaluation.sampler == "first_n" or evaluation.shots == 0:
        return False
    if evaluation.include is None or evaluation.sampler == "drawn":
        return True  # lm-eval's own tasks are not read here: that takes seconds
    try:
        folder = opened(evaluation.include)
        leaves = [leaf for name in evaluation.tasks for leaf in folder.leaves(name)]
    except InputError:  # check_eval reports it; a task of lm-eval's own is not read
        return True
    shots = [leaf.setting("num_fewshot") or 0 if evaluation.shots is None else evaluation.shots for leaf in leaves]
    first = [leaf.setting("fewshot_config") for leaf in leaves]
    drawn = [not isinstance(one, dict) or one.get("sampler") != "first_n" for one in first]
    return any(count and draws for count, draws in zip(shots, drawn, strict=True))
