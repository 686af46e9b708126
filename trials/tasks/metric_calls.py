"""Calls of a folder's own metrics, as lm-eval makes them: tried before anything starts, and explained where one fails.

lm-eval calls a metric with references and predictions by name. Where that raises a TypeError it calls the metric again, with
one list, and the second error hides the first.
"""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.api.registry import AGGREGATION_REGISTRY

from trials.errors import InputError, StorageFailed
from trials.tasks.failures import inside, told
from trials.tasks.folder import Leaf, TaskFolder
from trials.tasks.measures import Measure
from trials.tasks.metric_list import KEYS

Results = Mapping[str, Any]
_Call = tuple[list[Any], dict[str, Any]]
"""Positional and named arguments."""


class Scores:
    """Replaces a task's process_results: its errors name the task, the function, its line and the response.

    Raises InputError for an error of the folder's code, and for a value that the metric's aggregation cannot take.
    """

    def __init__(self, folder: TaskFolder, leaf: Leaf, task: Any):
        self._folder, self._leaf, self._task = folder, leaf, task
        self._usual: Callable[..., Results] = task.process_results
        self.tried: list[Results] = []
        """What the trial calls returned."""

    def __call__(self, doc: Any, responses: Sequence[Any]) -> Results:
        try:
            found = self._usual(doc, responses)
        except Exception as error:
            if isinstance(error, InputError | StorageFailed):
                raise
            raise self._failed(error, responses) from error
        for name, value in found.items() if isinstance(found, dict) else ():
            if self._task.aggregation().get(name) is AGGREGATION_REGISTRY["mean"] and not _is_number(value):
                raise InputError(
                    f"{self._place(name)}: task {self._leaf.name}: metric {name} returns {_short(value)} for a document; "
                    "aggregation: mean takes a number"
                )
        return found

    def _failed(self, error: BaseException, responses: Sequence[Any]) -> InputError:
        error = told(error, self._folder.root)
        frames = inside(error, self._folder.root)
        where = f"{frames[-1].filename}:{frames[-1].lineno}" if frames else self._folder.place(self._leaf, "metric_list")
        of = f"{frames[0].name}: " if frames else ""
        answer = f" for the response {_short(responses[0])}" if self._task.OUTPUT_TYPE == "generate_until" else ""
        reason = " ".join(str(error).split())[:200]
        return InputError(f"{where}: task {self._leaf.name}: {of}{type(error).__name__}: {reason}{answer}")

    def _place(self, metric: str) -> str:
        functions = (entry["metric"] for entry in self._task.config.metric_list or () if callable(entry["metric"]))
        own = next((one for one in functions if one.__name__ == metric), self._task.config.process_results)
        return place(own) or self._folder.place(self._leaf, "metric_list")

    def check(self) -> None:
        """Checks the parameters of the task's functions, and calls them on the first document.

        Raises InputError as a call does, and for parameters that lm-eval's call does not fit.
        """
        config = self._task.config
        scored = config.process_results
        for entry in config.metric_list or ():
            self._check_parameters(entry.get("aggregation"), [([[]], {})], "[one value for each document]")
            if scored is None and callable(metric := entry["metric"]):
                given = {key: entry[key] for key in entry if key not in KEYS}
                by_name: _Call = ([], {"references": [], "predictions": [], **given})
                shown = ", ".join(["references=[...]", "predictions=[...]", *(f"{key}=..." for key in given)])
                self._check_parameters(metric, [by_name, ([[]], {})], shown)
        self._check_parameters(scored, [([{}, []], {})], "document, responses")
        if any(callable(entry["metric"]) for entry in config.metric_list or ()) or callable(scored):
            self.tried = [self(doc, responses) for doc, responses in _calls(self._task)]

    def check_value(self, measure: Measure) -> None:
        """Raises InputError where a trial call gave this metric no value, or one that its aggregation cannot take."""
        for found in self.tried:
            if measure.metric not in found:
                functions = ", ".join(found)
                raise InputError(f"{self._place(measure.metric)}: it returns {functions}, but no {measure.metric}")
            measure.of_document(found[measure.metric])

    def _check_parameters(self, function: Any, calls: Sequence[_Call], shown: str) -> None:
        """Raises InputError for a function that can be called in none of these ways. `shown`: the first of them."""
        try:
            signature = inspect.signature(function)
        except (TypeError, ValueError):  # no function, or one without a signature
            return
        for positional, named in calls:
            try:
                signature.bind(*positional, **named)
            except TypeError:
                continue
            return
        name = getattr(function, "__name__", "it")
        where = place(function) or self._folder.place(self._leaf, "metric_list")
        raise InputError(
            f"{where}: task {self._leaf.name}: {name}({', '.join(signature.parameters)}) does not fit lm-eval's call "
            f"{name}({shown}); change its parameters"
        )


def _calls(task: Any) -> Iterator[tuple[Any, list[Any]]]:
    """(document, responses) of the first document: answered by its gold answer and by nothing, or with made-up likelihoods."""
    likelihood = (-1.0, False)
    match task.OUTPUT_TYPE:
        case "generate_until":
            for text in (_gold(task, task.eval_docs[0]), ""):
                for ensemble in task._filters:
                    doc = task.eval_docs[0]
                    request = Instance("generate_until", doc, ("", {}), 0, (task.config.task, 0, task.config.repeats))
                    request.resps = [text] * task.config.repeats
                    ensemble.apply([request])
                    yield doc, [request.filtered_resps[ensemble.name]]
        case "multiple_choice":
            doc = task.eval_docs[0]
            yield doc, [likelihood] * len(task.doc_to_choice(doc))
        case "loglikelihood":
            yield task.eval_docs[0], [likelihood]
        case "loglikelihood_rolling":
            yield task.eval_docs[0], [likelihood[0]]


def _gold(task: Any, doc: Any) -> str:
    gold = task.doc_to_target(doc)
    if task.config.doc_to_choice is not None and isinstance(gold, int):
        gold = task.doc_to_choice(doc)[gold]
    return str(gold[0] if isinstance(gold, list) and gold else gold)


def place(function: Any) -> str | None:
    """ "file:line" of a Python function."""
    code = getattr(inspect.unwrap(function), "__code__", None) if callable(function) else None
    return f"{code.co_filename}:{code.co_firstlineno}" if code is not None else None


def _is_number(value: Any) -> bool:
    try:
        float(value)
    except (TypeError, ValueError):
        return False
    return not isinstance(value, str | bytes)


def _short(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) < 60 else f"{shown[:57]}..."
