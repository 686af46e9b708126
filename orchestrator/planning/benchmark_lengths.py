"""Sizes of benchmarks in documents and tokens, without reading them."""

from dataclasses import dataclass, replace

from trials.spec import Evaluation


@dataclass(frozen=True)
class Lengths:
    """A task's size: documents, and mean tokens per document."""

    documents: int
    context: int
    """Prompt without few-shot examples."""
    shot: int
    """One few-shot example."""
    shots: int
    """Few-shot examples: the task's default, or the evaluation's number."""
    requests: int
    """Sequences scored per document, each a context and an ending."""
    ending: int
    generated: int
    """Tokens until the last row of a batch stops; 0 for scored endings."""
    longest: int
    """Largest context with its ending, not a mean."""

    @property
    def examples(self) -> int:
        """All few-shot examples of a prompt."""
        return self.shots * self.shot


_MMLU = {
    "computer_security": 100,
    "college_computer_science": 100,
    "high_school_computer_science": 100,
    "machine_learning": 112,
}
_LENGTHS = {
    "hellaswag": Lengths(10042, 51, 81, 0, 4, 30, 0, 180),
    "gsm8k": Lengths(1319, 73, 160, 5, 1, 0, 256, 160),
    # lm-eval scores the four letters from one pass over the question
    **{f"mmlu_{name}": Lengths(size, 114, 116, 0, 1, 1, 0, 480) for name, size in _MMLU.items()},
}
_CHOICE = Lengths(1000, 60, 80, 0, 4, 15, 0, 180)
_GENERATED = Lengths(1000, 75, 120, 2, 1, 0, 128, 160)


def lengths(evaluation: Evaluation) -> list[Lengths]:
    """The size of each task as the role takes it; an unknown task is taken for a typical one with its metric."""
    typical = _GENERATED if evaluation.metric == "exact_match" else _CHOICE
    found = [_LENGTHS.get(name, typical) for name in evaluation.tasks]
    total = sum(one.documents for one in found)
    share = 1.0 if evaluation.documents is None else evaluation.documents / total
    shots = {} if evaluation.shots is None else {"shots": evaluation.shots}
    return [replace(one, documents=round(one.documents * share), **shots) for one in found]


def unknown_tasks(evaluation: Evaluation) -> list[str]:
    return [name for name in evaluation.tasks if name not in _LENGTHS]
