"""Values for JSON."""

import json
import math

import numpy as np

from analysis.export.plain import plain


def test_numpy_types_tuples_and_unknown_numbers_become_json():
    value = {1: (np.float64(0.5), np.int64(2), np.bool_(True)), "gone": [math.nan, math.inf, None]}
    assert plain(value) == {"1": [0.5, 2, True], "gone": [None, None, None]}
    assert json.loads(json.dumps(plain(value), allow_nan=False)) == plain(value)
