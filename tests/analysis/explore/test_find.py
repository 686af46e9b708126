"""A trial is found by number, key, or the beginning of its key."""

import pytest

from analysis.explore.find import find_key, key_of
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


@pytest.mark.parametrize(
    ("name", "expected"), [("#9", "has no trial #9; it has 6 trials, #0 to #5"), ("zz", "no one record 'zz'")]
)
def test_unknown_trial_is_one_line(name, expected, usual):
    with pytest.raises(InputError, match=expected):
        key_of(usual.load(), name)


NUMBERS = {0: "aaaa11", 1: "aabb22", 12: "12cc33"}


@pytest.mark.parametrize(
    ("name", "key"),
    [("#0", "aaaa11"), ("1", "aabb22"), ("aab", "aabb22"), ("aabb22", "aabb22"), ("12c", "12cc33"), ("ff", "ff00")],
)
def test_name_means_one_key(name, key):
    assert find_key(name, "sweep", NUMBERS, [*NUMBERS.values(), "ff00", "aabb22"]) == key


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("#7", "sweep has no trial #7; it has 3 trials, #0 to #12"),
        ("aa", "sweep has no one record 'aa'; several keys begin so: aaaa11, aabb22"),
        ("zz", "sweep has no one record 'zz'"),
        ("", "sweep has no one record ''; several keys begin so: 12cc33, aaaa11, aabb22"),
        ("\x1b[2J\nx", r"sweep has no one record '\\x1b"),
    ],
)
def test_none_or_several_is_one_line(name, message):
    with pytest.raises(InputError) as caught:
        find_key(name, "sweep", NUMBERS, NUMBERS.values())
    assert str(caught.value).startswith(message.replace("\\\\", "\\"))
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(("numbers", "has"), [({0: "aa"}, "its only trial is #0"), ({}, "it has no trial yet")])
def test_missing_number_says_which_there_are(numbers, has):
    with pytest.raises(InputError, match=f"sweep has no trial #7; {has}$"):
        find_key("#7", "sweep", numbers, numbers.values())
