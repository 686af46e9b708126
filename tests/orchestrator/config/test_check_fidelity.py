"""search.multi_fidelity is refused where a part of a trial is no look at the whole one."""

import pytest

from orchestrator.config.load import load
from trials.errors import InputError


@pytest.fixture
def loaded(parts, write):
    def make(path="search.sampler", value="gp"):
        parts["search"] |= {"sampler": "gp", "trials": 8, "multi_fidelity": True}
        section = parts
        *above, last = path.split(".")
        for name in above:
            section = section.setdefault(name, {})
        section[last] = value
        return load(write(parts))

    return make


def test_multi_fidelity_is_off_by_default_and_allowed_with_the_gaussian_process(parts, write, loaded):
    assert not load(write(parts)).search.multi_fidelity
    assert loaded().search.multi_fidelity


@pytest.mark.parametrize(
    ("path", "value", "why"),
    [
        ("search.sampler", "tpe", "not tpe; give search.sampler: gp"),
        ("search.replicates", 2, "search.replicates: 1"),
        ("derive", {"strength": [0.5]}, "leave out `derive`"),
        ("resources.trials_per_pass", 2, "resources.trials_per_pass: 1"),
        ("search.constraints", ["learning.loss <= 2"], "no metrics of learning"),
        ("search.constraints", ["commonsense+math.worst_forgetting <= 0.1"], "is of several roles"),
        ("space.eval.math.seed", {"type": "categorical", "choices": [0, 1]}, "eval.math.seed cannot be searched"),
    ],
)
def test_what_it_cannot_be_combined_with_is_refused_in_one_line(loaded, path, value, why):
    if path.startswith("space."):
        path, value = "space", {"lora.rank": {"type": "categorical", "choices": [2, 4]}, "eval.math.seed": value}
    with pytest.raises(InputError, match=why) as refused:
        loaded(path, value)
    assert len([line for line in str(refused.value).splitlines() if "multi_fidelity" in line]) == 1
