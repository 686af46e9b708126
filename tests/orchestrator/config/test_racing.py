"""Racing is on where it can be, unless a config says otherwise."""

import re

import pytest

from orchestrator.config.load import load, resolved, settled
from orchestrator.config.model import SweepConfig
from orchestrator.config.racing import by_default, obstacles
from tests.factories.own_tasks import CHOICES, NOTES, SUMS, shop
from trials.errors import InputError

SEARCHED = {"sampler": "random", "trials": 4}


@pytest.fixture
def searched(parts):
    """The config with a sampler that searches."""
    parts["search"] |= SEARCHED
    return parts


def test_search_races_and_a_grid_does_not(parts, write):
    assert not load(write(parts)).search.racing
    parts["search"] |= SEARCHED
    assert load(write(parts)).search.racing


@pytest.mark.parametrize("racing", [True, False])
def test_what_a_config_says_stays(parts, write, racing):
    parts["search"]["racing"] = racing
    assert load(write(parts)).search.racing == racing


CANNOT = [
    (lambda p: p["search"].update(replicates=3), "replicates: 1"),
    (lambda p: p["eval"]["math"].update(fewshot="stock", shots=3), "fewshot: first_n"),
    (lambda p: p.update(derive={"strength": [0.5]}), "leave out `derive`"),
    (lambda p: p["space"].update({"eval.math.shots": {"type": "categorical", "choices": [1, 2]}}), "cannot be searched"),
    (
        lambda p: p["search"].update(objectives=["commonsense.gain", "commonsense+math.worst_forgetting"]),
        "commonsense+math.worst_forgetting is of several roles",
    ),
]


@pytest.mark.parametrize(("change", "words"), CANNOT)
def test_sweep_that_cannot_race_does_not_where_it_says_nothing(searched, write, change, words):
    change(searched)
    config = load(write(searched))
    assert not config.search.racing
    assert words in obstacles(config)[0]


@pytest.mark.parametrize(("change", "words"), CANNOT)
def test_config_that_asks_for_a_race_it_cannot_have_is_refused_in_one_line(searched, write, change, words):
    change(searched)
    searched["search"]["racing"] = True
    with pytest.raises(InputError, match=re.escape(words)) as refused:
        load(write(searched))
    assert len(str(refused.value).splitlines()) == 1


def test_sweep_yaml_of_either_kind_is_a_config_again(searched, write, tmp_path):
    for change, _ in [(lambda _: None, ""), *CANNOT[:1]]:
        change(searched)
        first = load(write(searched))
        path = tmp_path / "sweep.yaml"
        path.write_text(resolved(first))
        assert load(path) == first


@pytest.mark.parametrize(
    ("role", "yaml", "draws"),
    [
        (CHOICES, "", False),  # no few-shot rows
        ({**CHOICES, "shots": 2}, "", True),
        (SUMS, "", False),  # two, always the first ones: fewshot_config of its YAML
        ({**SUMS, "fewshot": "drawn"}, "", True),
        (SUMS, "fewshot_config: {sampler: default}\n", True),
        (NOTES, "", False),
        ({"task": "hellaswag", "metric": "acc"}, "", True),  # lm-eval's own: not read
        ({"task": "hellaswag", "metric": "acc", "shots": 0}, "", False),
        ({"task": "hellaswag", "metric": "acc", "documents": 100}, "", False),  # a sample has the first rows
    ],
)
def test_few_shot_rows_that_are_drawn_keep_a_sweep_from_racing(searched, tmp_path, role, yaml, draws):
    folder = shop(tmp_path)
    with (folder / "sums.yaml").open("a") as file:
        file.write(yaml)
    searched["eval"]["own"] = role if role["task"] == "hellaswag" else {**role, "include": str(folder)}
    searched["search"]["objectives"].append({"metric": "own.gain", "direction": "maximize"})
    config = SweepConfig.model_validate(searched)
    assert by_default(config) == settled(config).search.racing == (not draws)
