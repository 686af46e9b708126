"""The points of a space are trials, each base with one baseline."""

import pytest

from orchestrator.config.load import load
from orchestrator.config.model import SweepConfig, remix
from tests.factories.configs import DORA, DROPOUT, assert_reported, in_search, in_space, problem


@pytest.mark.parametrize("name", ["password", "sslpassword", "SSLPassword"])
def test_password_in_study_is_refused(parts, write, name):
    parts["search"]["study"] = f"postgresql://me@host/db?{name}=hunter2"
    assert "PGPASSWORD" in problem(write(parts))


def test_replicates_differ_in_seeds_alone(parts, write):
    parts["search"]["replicates"] = 3
    config = load(write(parts))
    specs = config.specs({"lora.rank": 2})
    assert specs[0] == config.spec({"lora.rank": 2})
    assert [(spec.data.seed, spec.train.seed) for spec in specs] == [(0, 0), (1, 1), (2, 2)]
    assert len({spec.key for spec in specs}) == 3
    assert len({spec.baseline().key for spec in specs}) == 1


def test_seeds_are_an_axis(parts, write):
    parts["space"] = {
        "train.seed": {"type": "int", "low": 0, "high": 2},
        "data.seed": {"type": "categorical", "choices": [0, 7]},
    }
    config = load(write(parts))
    assert config.budget == 6
    assert len({config.spec(point).key for point in config.grid()}) == 6


def test_paired_bases_have_a_baseline_each(parts, write):
    parts["space"] = {
        "_": [
            {"base.model": "micro", "base.revision": None, "base.quantization": "nf4", "lora.rank": 4},
            {"base.model": "micro", "base.revision": None, "base.quantization": "nf4", "lora.rank": 8},
            {"base.model": "micro", "base.revision": "v2", "base.quantization": "none", "lora.rank": 8},
        ],
        "base.dtype": {"type": "categorical", "choices": ["float32", "bfloat16"], "when": {"base.quantization": "none"}},
    }
    config = load(write(parts))
    bases = {(spec.base.revision, spec.base.quantization, spec.base.dtype) for spec in config.baseline_specs()}
    assert bases == {(None, "nf4", "float32"), ("v2", "none", "float32"), ("v2", "none", "bfloat16")}
    assert len(config.baseline_specs()) == 3
    assert {config.spec(point).baseline().key for point in config.grid()} == {spec.key for spec in config.baseline_specs()}


def test_baseline_exists_where_training_is_contradictory(parts):
    parts["space"] = {
        "_": [{"base.quantization": "nf4", "train.batch_size": 8}, {"base.quantization": "none", "train.batch_size": 12}],
        "train.micro_batch_size": {"type": "categorical", "choices": [4, 8]},
    }
    config = SweepConfig.model_validate(parts)  # its own micro-batch is 8
    assert config.size() == 3
    assert len(config.baseline_specs()) == 2


def test_grid_leaves_inactive_settings_out(parts, write):
    parts["space"] = {
        "lora.dropout": {**DROPOUT, "step": 0.1, "when": {"lora.use_dora": True}},
        "lora.use_dora": DORA,
        "data.mix": {"type": "simplex", "step": 0.5},
    }
    config = load(write(parts))
    points = list(config.grid())
    assert len(points) == config.size() == config.budget == (3 + 1) * 3
    assert len({config.spec(point).key for point in points}) == len(points)


def test_corners_need_every_base_and_most_rows_of_every_source(parts, write):
    parts["space"] = {
        "_": [{"base.quantization": "nf4", "lora.rank": 4}, {"base.quantization": "none", "lora.rank": 8}],
        "data.samples": {"type": "int", "low": 8, "high": 64},
        "data.mix": {"type": "simplex", "when": {"base.quantization": "nf4"}, "step": 0.5},
        "train.learning_rate": {"type": "categorical", "choices": [1e-3, 1e-2]},
    }
    config = load(write(parts))
    corners = list(config.corners(("base.", "data."), {"data.samples": 64}))
    mixes = [(1.0, 0.0), (0.0, 1.0)]
    names = ("data.mix.micro/alpaca", "data.mix.micro/gsm8k")
    nf4 = {"base.quantization": "nf4", "lora.rank": 4, "data.samples": 64}
    assert corners == [
        *(nf4 | dict(zip(names, mix, strict=True)) for mix in mixes),
        {"base.quantization": "none", "lora.rank": 8, "data.samples": 64},
    ]


def test_searched_share_scales_the_others():
    assert remix({"a": 0.6, "b": 0.2, "c": 0.2}, {"c": 0.6}) == {"a": 0.3, "b": 0.1, "c": 0.6}
    assert remix({"a": 0.5, "b": 0.5}, {"b": 0.0}) == {"a": 1.0, "b": 0.0}
    with pytest.raises(ValueError, match="more than 1"):
        remix({"a": 0.5, "b": 0.5}, {"a": 0.7, "b": 0.7})


def test_one_baseline_for_each_base(parts, write):
    parts["space"]["base.quantization"] = {"type": "categorical", "choices": ["nf4", "none"]}
    config = load(write(parts))
    assert len(config.baseline_specs()) == 2
    assert config.budget == 4
    assert len({config.spec(point).key for point in config.grid()}) == 4


def test_source_name_may_have_dots(parts, write):
    parts["data"]["sources"] = {"my.v1.5": {"dataset": "d", "text": "{{text}}"}}
    parts["data"]["mix"] = {"my.v1.5": 0.5, "micro/gsm8k": 0.5}
    parts["space"] = {"data.mix.my.v1.5": [0.2, 0.4]}
    assert load(write(parts)).spec({"data.mix.my.v1.5": 0.2}).data.mix == {"my.v1.5": 0.2, "micro/gsm8k": 0.8}


@pytest.mark.parametrize(
    ("change", "at", "expected"),
    [
        (in_search(sampler="nsga4"), "sampler:", "did you mean nsga3?"),
        (in_search(gpu_hours=0), "gpu_hours:", "a number above 0"),
        (in_search(replicates=0), "replicates:", "a whole number from 1"),
        (in_search(seed=-1), "seed:", "a whole number from 0"),
        (in_search(study="postgres://me@host/db"), "study:", "allowed: sqlite, journal, postgresql://USER@HOST/DATABASE"),
        (in_search(study="postgresql://me:hunter2@host/db"), "study:", "give it by PGPASSWORD or ~/.pgpass"),
        (in_search(study="postgresql://me@host/db?password=hunter2"), "study:", "give it by PGPASSWORD or ~/.pgpass"),
        (lambda p: p["resources"].update(gpus_per_trial=1.5), "gpus_per_trial:", "or a whole number of GPUs, but got 1.5"),
        (lambda p: p["resources"].update(accelerator_type=""), "accelerator_type:", "a text that is not empty"),
        (lambda p: p.update(trackers=["tensorbord"]), "- tensorbord", "one of tensorboard, mlflow, wandb"),
        (in_space(lora__rank={"typ": "int"}), "lora.rank:", "expected {type: categorical, float, int or simplex"),
        (in_space(lora__rank={"type": "categorical", "choices": [4, 4]}), "choices:", "a choice stands twice in [4, 4]"),
        (in_space(data__mix={"type": "simplex", "sources": ["x"]}), "sources:", "a list of 2 or more entries"),
        (in_space(data__mix={"type": "simplex", "sources": ["x", "x"]}), "sources:", "a source stands twice"),
    ],
)
def test_mistake_is_reported_at_its_place(parts, write, change, at, expected):
    assert_reported(parts, write, (change, at, expected))


def test_auto_is_a_gaussian_process_while_that_is_quick(parts):
    def meant(**search) -> str:
        return SweepConfig.model_validate({**parts, "search": {**parts["search"], **search}}).sampler

    parts["space"] = {"train.learning_rate": {"type": "float", "low": 1e-4, "high": 1e-2}}
    many = [{"metric": f"math.{kind}", "direction": "minimize"} for kind in ("gain", "value", "drop", "forgetting", "base")]
    assert meant(sampler="auto", trials=16) == meant(sampler="auto", hours=1.0) == "gp"
    assert meant(sampler="auto", trials=1000) == meant(sampler="auto", trials=16, objectives=many) == "tpe"
    assert meant(sampler="nsga2", trials=1000) == "nsga2"
