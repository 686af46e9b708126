"""What each role is scored on: its tasks, where they come from, how many documents they have. Downloads nothing."""

from collections.abc import Iterable
from dataclasses import dataclass

from orchestrator.planning.benchmark_lengths import lengths, unknown_tasks
from trials.spec import Evaluation, TrialSpec
from trials.tasks.measures import measure
from trials.tasks.tasks import Tasks


@dataclass(frozen=True)
class Benchmark:
    task: tuple[str, ...]
    origin: str
    """A folder, "slimsweep" or "lm-eval"."""
    metric: str
    """As "metric,filter"."""
    better: str | None
    """"higher" or "lower"; None where that is known only when it runs."""
    documents: int | None
    """That a trial answers; None where that is known only when it runs."""
    of: int | None
    """All that there are."""


def benchmarks(specs: Iterable[TrialSpec], tasks: Tasks) -> dict[str, Benchmark]:
    """By role, from the first spec. Raises InputError for an own task that cannot be built."""
    first = next(iter(specs))
    return {role: _benchmark(evaluation, tasks) for role, evaluation in first.eval.items()}


def _benchmark(evaluation: Evaluation, tasks: Tasks) -> Benchmark:
    total, better = None, None
    if tasks.at_hand(evaluation):
        built = tasks.build(evaluation)
        total = sum(len(task.eval_docs) for task in built.values())
        higher = [measure(task, evaluation.metric).scale.higher_is_better for task in built.values()]
        better = "higher" if all(higher) else "lower"
    elif evaluation.include is None and not unknown_tasks(evaluation):
        total = sum(one.documents for one in lengths(evaluation.model_copy(update={"documents": None})))
    bundled = evaluation.include is None and all(map(tasks.bundled, evaluation.tasks))
    return Benchmark(
        task=evaluation.tasks,
        origin=evaluation.include or ("slimsweep" if bundled else "lm-eval"),
        metric=f"{evaluation.metric},{evaluation.filter}",
        better=better,
        documents=total if evaluation.documents is None else evaluation.documents,
        of=total,
    )
