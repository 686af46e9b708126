"""A twin has the same design with other sources, benchmarks and sizes."""

from orchestrator.ablations.model import Part, Twin
from orchestrator.ablations.twin import Change, merged

SETTINGS = {
    "data": {"samples": 1000, "mix": {"gsm8k": 1.0}},
    "train": {"batch_size": 8, "learning_rate": 1e-4},
    "eval": {"math": {"preset": "gsm8k", "shots": 2}},
}
TWIN = Twin(
    sources={"gsm8k": "micro/gsm8k"},
    presets={"gsm8k": {"task": "micro_gsm", "shots": 0}},
    scale={"data.samples": 0.1, "train.learning_rate": 30},
)


def test_settings_are_scaled_and_replaced():
    changed = Change.of(TWIN, Part(settings={"train": {"epochs": 2}}), SETTINGS).settings(SETTINGS)
    assert changed["data"] == {"samples": 96, "mix": {"micro/gsm8k": 1.0}}  # a multiple of the batch
    assert changed["train"] == {"batch_size": 8, "learning_rate": 0.003, "epochs": 2}
    assert changed["eval"] == {"math": {"task": "micro_gsm", "shots": 2}}
    assert SETTINGS["data"]["samples"] == 1000


def test_cells_have_the_twins_names_and_sizes():
    change = Change.of(TWIN, Part(), SETTINGS)
    written = {"only": {"data.mix.gsm8k": 0.5, "data.replay.source": ["gsm8k", None], "data.samples": [0, 1, 1000]}}
    assert change.rewritten(written) == {
        "only": {"data.mix.micro/gsm8k": 0.5, "data.replay.source": ["micro/gsm8k", None], "data.samples": [0, 8, 96]}
    }
    assert change.rewritten({"x": "data.mix.gsm8k", "title": "gsm8k by data.mix"}) == {
        "x": "data.mix.micro/gsm8k",
        "title": "gsm8k by data.mix",
    }


def test_groups_leave_out_bases_without_replacement():
    twin = Twin(models={"org/a": "small", "org/b": None}, bases={"small": {"model": "tiny"}})
    written = {"path": "base.model", "groups": [["org/a", "org/c"], ["org/d"]]}
    assert Change.of(twin, Part(), SETTINGS).rewritten(written)["groups"] == [["tiny"], []]


def test_small_scale_scales_beside_the_twin():
    change = Change.of(TWIN, Part(scale={"data.samples": 0.5}), SETTINGS)
    assert change.rewritten({"data.samples": 1000}) == {"data.samples": 496}


def test_merge_takes_mix_and_benchmarks_whole():
    over = {"data": {"mix": {"alpaca": 1.0}}, "train": {"epochs": 3}}
    found = merged(SETTINGS, over)
    assert found["data"] == {"samples": 1000, "mix": {"alpaca": 1.0}}
    assert found["train"] == {**SETTINGS["train"], "epochs": 3}
