"""What each role is scored on: its tasks, where they come from, how many documents they have. Downloads nothing."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from orchestrator.planning.benchmark_lengths import lengths, unknown_tasks
from trials.evaluation import racing
from trials.ledger.outcomes import REPORT, SEARCH, Half
from trials.spec import Evaluation, TrialSpec
from trials.tasks.measures import measure
from trials.tasks.splits import document_numbers
from trials.tasks.tasks import Tasks, too_many_documents


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
    halves: dict[Half, int] | None = None
    """Documents of the search and of the report; None where one set serves both, or that is known only when it runs."""


def benchmarks(specs: Iterable[TrialSpec], tasks: Tasks, halved: bool) -> dict[str, Benchmark]:
    """By role, from the first spec. Raises InputError for an own task that cannot be built, and for too many documents.

    `halved`: the search sees one half of the documents, and the report quotes the other.
    """
    first = next(iter(specs))
    return {role: _benchmark(role, evaluation, tasks, halved) for role, evaluation in first.eval.items()}


def _benchmark(role: str, evaluation: Evaluation, tasks: Tasks, halved: bool) -> Benchmark:
    total, better, halves = None, None, None
    if tasks.at_hand(evaluation):
        built = tasks.build(evaluation)
        total = sum(len(task.eval_docs) for task in built.values())
        higher = [measure(task, evaluation.metric).scale.higher_is_better for task in built.values()]
        better = "higher" if all(higher) else "lower"
        if halved:
            answered = racing.documents(built, document_numbers(evaluation, built))
            counts = Counter(one.half for one in answered)
            halves = {half: counts[half] for half in (SEARCH, REPORT)}
    elif evaluation.include is None and not unknown_tasks(evaluation):
        total = sum(one.documents for one in lengths(evaluation.model_copy(update={"documents": None})))
        if evaluation.documents is not None and evaluation.documents > total:
            raise too_many_documents(role, evaluation, total)
    bundled = evaluation.include is None and all(map(tasks.bundled, evaluation.tasks))
    return Benchmark(
        task=evaluation.tasks,
        origin=evaluation.include or ("slimsweep" if bundled else "lm-eval"),
        metric=f"{evaluation.metric},{evaluation.filter}",
        better=better,
        documents=total if evaluation.documents is None else evaluation.documents,
        of=total,
        halves=halves,
    )
