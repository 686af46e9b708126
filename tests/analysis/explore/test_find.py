"""A trial is found by number, key, or the beginning of its key."""

import pytest

from analysis.explore.find import key_of
from trials.errors import InputError


def test_trial_is_found_by_number_key_and_beginning_of_the_key(usual):
    sweep = usual.load()
    key = sweep.trials["key"].iloc[1]
    assert {key_of(sweep, name) for name in ("#1", "1", key, key[:10])} == {key}


def test_imported_model_is_found_by_its_name(usual):
    for trial, model in zip(usual.trials, ["mine", "other", "other", *"abc"], strict=True):
        trial["params"] = {"model": model}
    sweep = usual.load(space=["model"])
    assert key_of(sweep, "mine") == sweep.trials["key"].iloc[0]
    with pytest.raises(InputError, match="has no one record 'other'"):
        key_of(sweep, "other")


@pytest.mark.parametrize(("name", "expected"), [("#9", "has no trial #9; it has 6, from #0 on"), ("zz", "no one record 'zz'")])
def test_unknown_trial_is_one_line(name, expected, usual):
    with pytest.raises(InputError, match=expected):
        key_of(usual.load(), name)
