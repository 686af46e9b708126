"""The points of an ablation's figure."""

import math

import numpy as np
import pytest

from analysis.ablations.points import key, lines, path_name
from tests.factories.ablation_sweeps import BY_SOURCE, DOSE, asked, figured, swept


def numbers(line):
    return [row["number"] for row in line.rows]


def test_rows_without_a_setting_begin_every_line(tmp_path):
    found = {line.label: numbers(line) for line in lines(asked(swept(tmp_path, DOSE)), BY_SOURCE)}
    assert found == {"gsm8k": [0, 1, 2], "self": [0, 4, 3]}


@pytest.mark.parametrize(
    ("only", "shown"),
    [
        ({"data.replay.source": "self"}, [4, 3]),
        ({"data.replay.share": [0.1, 0.5], "data.replay.source": "gsm8k"}, [1, 2]),
        ({"data.replay.source": None}, [0]),
        ({"data.replay.source": [None, "self"]}, [0, 4, 3]),
        ({"data.samples": 64}, [0, 1, 4, 2, 3]),
        ({"data.samples": 128}, []),
        ({"data.unheard_of": None}, [0, 1, 4, 2, 3]),
    ],
)
def test_only_selected_rows_are_shown(tmp_path, only, shown):
    spec = figured("f", "F", "data.replay.share", ("math.drop",), only=only)
    answer = asked(swept(tmp_path, DOSE))
    assert [number for line in lines(answer, spec) for number in numbers(line)] == shown


def test_derived_points_end_at_the_trained_one(tmp_path):
    points = [({"lora.rank": 8, "derive.samples": rows}, (20, 30)) for rows in (0, 16, 32, None)]
    answer = asked(swept(tmp_path, points))
    (course,) = lines(answer, figured("f", "F", "derive.samples", ("math.drop",), log=True))
    assert [row["x"] for row in course.rows] == [0, 16, 32, 64]  # 64 rows are what the Builder's trials are trained on
    (trained,) = lines(answer, figured("f", "F", "lora.rank", ("math.drop",)))
    assert numbers(trained) == [3]


def test_many_lines_become_families(tmp_path):
    usual = {"train.kl": 0.0, "train.l2": 0.0}
    points = [(usual, (20, 30)), *((usual | {path: n}, (20, 30 + n)) for path in usual for n in range(1, 6))]
    spec = figured("f", "F", "commonsense.gain", ("math.drop",), by=tuple(usual))
    found = lines(asked(swept(tmp_path, points)), spec)
    assert {line.label: len(line.rows) for line in found} == {"none of these": 1, "kl": 5, "l2": 5}


def test_equal_values_have_equal_keys():
    assert key(0.1) == key(np.float64(0.1)) and key(8) == key(8.0)
    assert len({key(value) for value in (True, 1, "1", "true", None, ["q"], "q")}) == 7
    assert key(None) == key(math.nan) == ""


def test_setting_is_named_by_its_last_words():
    assert path_name("data.replay.share") == "replay share" and path_name("derive.off") == "switched off"
