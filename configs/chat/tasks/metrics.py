"""The metric of places.yaml: lm-eval calls it with the right answer and the model's answer of one question."""


def named(references: list[str], predictions: list[str]) -> float:
    """1 where the answer names the place, else 0."""
    return float(references[0].lower() in predictions[0].lower())
