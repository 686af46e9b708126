"""The metric of places.yaml: lm-eval calls it once for each question.

The call is named(references=[RIGHT ANSWER], predictions=[MODEL'S ANSWER]): a metric needs parameters of these names, and
returns a number. The model's answer may be empty.
"""


def named(references: list[str], predictions: list[str]) -> float:
    """1 where the answer names the place, else 0."""
    return float(references[0].lower() in predictions[0].lower())
