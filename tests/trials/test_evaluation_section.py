"""The section of a benchmark: its contradictions are refused."""

import pytest
from pydantic import ValidationError

from trials.evaluation_section import Evaluation

CHOICE = {"task": "micro_swag", "metric": "acc"}


@pytest.mark.parametrize(
    ("fields", "refusal"),
    [
        ({"fewshot_as_multiturn": True}, "fewshot_as_multiturn is a setting of the chat template"),
        (
            {"enable_thinking": False},
            "enable_thinking is a setting of the chat template; give chat_template",
        ),
        ({"chat_template": True, "enable_thinking": True}, "enable_thinking needs think_end_token"),
        (
            {"chat_template": True, "chat_template_args": {"enable_thinking": True}},
            "enable_thinking in chat_template_args has a key of its own; give enable_thinking beside it",
        ),
    ],
)
def test_contradiction_is_refused(fields, refusal):
    with pytest.raises(ValidationError) as caught:
        Evaluation.model_validate(CHOICE | fields)
    assert refusal in str(caught.value)


def test_engine_of_earlier_records_is_lm_evals():
    assert Evaluation(task="x", metric="acc", engine="hf").engine == "hflm"
