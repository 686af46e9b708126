"""The maximum length follows from the model's position table."""

import pytest

from tests.fuzz import miniatures
from trials.models import positions


@pytest.mark.parametrize(("name", "expected"), [("opt", 64), ("gpt_neo", 64), ("llama", None)])
def test_limit_is_that_of_the_position_table(name, expected):
    fields = {} if expected is None else {"max_position_embeddings": expected}
    assert positions.limit(miniatures.miniature(name, **fields)) == expected
