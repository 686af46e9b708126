"""Values as JSON has them."""

import math
from typing import Any

import numpy as np


def plain(value: Any) -> Any:
    """No numpy types, no tuples, and None for what is not a finite number."""
    if isinstance(value, dict):
        return {str(key): plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(one) for one in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
