"""What is derived from a training takes part in the search without costing a trial, whatever happens in between."""

import pytest

from orchestrator.config.load import load
from orchestrator.config.model import SweepConfig
from orchestrator.sweep.controller import SweepController
from tests.factories.sweep_state import complete, run_out
from trials.errors import InputError
from trials.spec import TrialSpec


@pytest.fixture
def derived(parts) -> SweepConfig:
    parts["derive"] = {"strength": [0.25, 0.5], "rank": [2]}
    return SweepConfig.model_validate(parts)


def test_each_training_brings_its_derived_points_and_the_budget_does_not_count_them(derived, tmp_path):
    sweep = SweepController.open(derived, tmp_path)
    jobs = run_out(sweep)[1:]
    trained = [job for job in jobs if job.spec.parent is None]
    assert [job.settings["lora.rank"] for job in trained] == [2, 4]
    made = [(job.spec.lora.rank, job.spec.derive.strength, job.spec.derive.rank) for job in jobs if job.spec.parent]
    assert sorted(made, key=str) == sorted(
        [(rank, s, None) for rank in (2, 4) for s in (0.25, 0.5)] + [(rank, 1.0, 2) for rank in (2, 4)], key=str
    )
    assert sweep.over
    assert sweep.config.budget == 2
    states = [trial.state for trial in sweep.study.trials()]
    assert states == ["complete"] * 8
    assert all(trial.values for trial in sweep.study.trials())


def test_derived_points_that_were_cut_off_or_never_begun_come_on_the_next_start(derived, tmp_path):
    sweep = SweepController.open(derived, tmp_path)
    complete(sweep, sweep.next_job())
    complete(sweep, sweep.next_job())  # and with it three derived points
    sweep.next_job()
    resumed = SweepController.open(derived, tmp_path)
    jobs = run_out(resumed)
    assert len([job for job in jobs if job.spec.parent is None]) == 1
    assert len({job.spec.key for job in jobs}) == len(jobs) == 7
    keys = [trial.key for trial in resumed.study.trials()]
    assert len(set(keys)) == len(keys) == 8, "nothing is in the study twice"


@pytest.mark.parametrize("sampler", ["tpe", "nsga2", "random", "gp"])
def test_every_sampler_takes_derived_points_for_trials(parts, tmp_path, sampler):
    parts["space"] = {"train.learning_rate": {"type": "float", "low": 1e-4, "high": 1e-2, "log": True}}
    parts["search"] |= {"sampler": sampler, "trials": 5}
    parts["derive"] = {"strength": [0.5]}
    jobs = run_out(sweep := SweepController.open(SweepConfig.model_validate(parts), tmp_path))[1:]
    assert len(jobs) == 10
    assert len({(job.spec.parent or job.spec).key for job in jobs}) == 5
    assert sweep.state.expected == 10


def test_a_derived_point_has_a_key_of_its_own_and_names_its_parent(spec):
    def with_derive(**derive):
        return TrialSpec.model_validate(spec.model_dump() | {"derive": derive})

    half = with_derive(strength=0.5)
    assert half.key != spec.key
    assert half.parent == spec
    assert with_derive(strength=1.0).key == spec.key
    assert with_derive(strength=1.0).parent is None
    assert half.baseline().key == spec.baseline().key
    keyless = with_derive(off="q")
    assert keyless.parent == spec
    assert len({keyless.key, half.key, spec.key, with_derive(off="k").key}) == 4
    assert "off" not in spec.canonical()["derive"], "keys of before there was such a thing stay"


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"derive": {"samples": [16]}, "train": {"schedule": "cosine"}}, "needs a constant or wsd schedule"),
        ({"derive": {"samples": [40]}}, "beyond the 32 rows"),
        ({"derive": {"samples": [12]}}, "no multiple of train.batch_size 8"),
        ({"derive": {"samples": [32]}, "train": {"schedule": "wsd"}}, "beyond the 25 rows"),
        ({"derive": {"rank": [16]}, "space": {"train.seed": {"type": "int", "low": 0, "high": 1}}}, "above lora.rank"),
        ({"derive": {"samples": [8]}, "train": {"warmup": 0.25}}, "within the warm-up"),
        ({"derive": {"samples": [16]}, "train": {"stop_kl": 0.5}}, "does not go with train.stop_kl"),
        ({"derive": {"rank": [2]}, "lora": {"use_dora": True}}, "does not go with lora.use_dora"),
        ({"derive": {"off": ["k"]}, "lora": {"target_modules": "mlp"}}, "does not go with lora.target_modules mlp"),
        ({"derive": {"off": ["last-third"]}, "lora": {"layers": "first-third"}}, "does not go with lora.layers first-third"),
        ({"derive": {"off": ["o"]}}, "one of q, k, v"),
        ({"derive": {"strength": [1.5]}}, "above 0 and up to 1.25"),
    ],
)
def test_what_cannot_be_derived_is_refused_with_its_place(parts, write, change, expected):
    for name, value in change.items():
        parts[name] = value if name == "space" else parts.get(name, {}) | value
    with pytest.raises(InputError, match=expected) as refused:
        load(write(parts))
    assert ".yaml:" in str(refused.value)


def test_each_part_that_is_switched_off_is_a_point_of_its_own(parts):
    parts["derive"] = {"off": ["q", "last-third"], "strength": [0.5]}
    config = SweepConfig.model_validate(parts)
    assert config.derive.points() == [
        {"derive.strength": 1.0, "derive.off": None},
        {"derive.strength": 0.5, "derive.off": None},
        {"derive.strength": 1.0, "derive.off": "q"},
        {"derive.strength": 1.0, "derive.off": "last-third"},
    ]
    assert config.spec(config.derive.points()[2]).derive.off == "q"


def test_the_other_points_of_a_training_that_failed_are_not_asked_for(parts, tmp_path):
    from tests.factories.sweep_state import fail

    parts["space"] = {"train.learning_rate": {"type": "categorical", "choices": [1e-3, 2e-3]}}
    parts["search"] |= {"sampler": "random", "trials": 6}
    parts["derive"] = {"strength": [0.25, 0.5]}
    sweep = SweepController.open(SweepConfig.model_validate(parts), tmp_path)
    complete(sweep, sweep.next_job())
    first = sweep.next_job()
    fail(sweep, first, "NonFiniteLoss")
    sweep.finish(first.spec.key)
    others = run_out(sweep)
    failed = (first.spec.parent or first.spec).key
    assert failed not in {(job.spec.parent or job.spec).key for job in others}
    assert len(others) == 3


def test_a_derived_point_that_is_asked_first_has_its_training_keep_what_the_others_need(parts):
    parts["derive"] = {"samples": [8, 16]}
    parts["train"]["warmup"] = 0.0
    config = SweepConfig.model_validate(parts)
    assert config.kept(config.spec({"derive.samples": 8})) == config.kept(config.spec({"derive.samples": None})) == [8, 16]


def test_points_are_derived_from_the_named_trainings_alone(parts, tmp_path):
    parts["derive"] = {"strength": [0.5], "of": {"lora.rank": 4}}
    jobs = run_out(SweepController.open(SweepConfig.model_validate(parts), tmp_path))
    assert [job.spec.lora.rank for job in jobs if job.spec.parent is not None] == [4]
