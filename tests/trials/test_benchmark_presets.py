"""A preset's name stands for the fields of an evaluation."""

import pytest

from trials.benchmark_presets import benchmarks, expand


def test_name_and_mapping_expand_to_the_same_fields():
    assert expand("gsm8k") == expand({"preset": "gsm8k"}) == benchmarks()["gsm8k"]


def test_field_beside_the_name_overrides_the_presets():
    assert expand({"preset": "gsm8k", "shots": 3}) == {**benchmarks()["gsm8k"], "shots": 3}


def test_other_values_are_unchanged():
    for value in ({"task": "x", "metric": "acc"}, None, 3):
        assert expand(value) == value


def test_unknown_preset_names_the_nearest():
    with pytest.raises(ValueError, match=r"no preset 'gsm8'; did you mean 'gsm8k'\? known: .*gsm8k"):
        expand("gsm8")


def test_preset_with_a_task_is_refused():
    with pytest.raises(ValueError, match="give a preset or a task, not both"):
        expand({"preset": "gsm8k", "task": "x"})
