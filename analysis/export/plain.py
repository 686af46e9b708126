"""Values for JSON."""

import math
from typing import Any

import numpy as np


def plain(value: Any) -> Any:
    """The value without numpy types and tuples; None for a number that is not finite."""
    if isinstance(value, dict):
        return {str(key): plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(one) for one in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
