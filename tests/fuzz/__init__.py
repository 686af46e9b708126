"""Many odd inputs of one kind each: configs, damaged storage, terminals and limits, architectures.

`make fuzz` runs all of them. `make test` runs every tenth.
"""

from collections.abc import Iterable
from typing import Any

import pytest


def cases(all_cases: Iterable[tuple[str, Any]], every: int = 10) -> list[Any]:
    """Parameters for `pytest.mark.parametrize` from (id, case) pairs; only each `every`-th runs outside `make fuzz`."""
    return [
        pytest.param(case, id=name, marks=[] if number % every == 0 else [pytest.mark.fuzz])
        for number, (name, case) in enumerate(all_cases)
    ]
