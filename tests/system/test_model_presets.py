"""The models' presets, a base taken from another file, and the type that base.dtype auto stands for."""

from pathlib import Path

import pytest
import yaml

from orchestrator import gpu_catalog
from orchestrator.config.load import load, resolved
from orchestrator.console.plan_table import table
from orchestrator.planning.plan import Gpus, plan
from trials.errors import InputError
from trials.models import devices

PRESETS = sorted((Path(__file__).parents[2] / "configs" / "models").glob("*.yaml"))


@pytest.fixture
def auto(parts):
    parts["base"] = {"model": "micro"}
    return parts


# ---------------------------------------------------------------------- base.dtype auto


@pytest.mark.parametrize(
    ("gpu", "expected"),
    [
        *[(name, "float16") for name in ("T4", "Tesla T4", "V100", "P100", "NVIDIA GeForce GTX 1080 Ti", "RTX 2080")],
        *[(name, "bfloat16") for name in ("A100", "A100-80G", "A10G", "L4", "H100", "NVIDIA GeForce RTX 4090", "B200", "new")],
    ],
)
def test_auto_is_the_type_of_the_gpu_that_a_trial_asks_for(auto, write, gpu, expected):
    auto["resources"] = {"gpus_per_trial": 1, "accelerator_type": gpu}
    assert load(write(auto)).base.dtype == expected
    auto["resources"] = {"gpus_per_trial": 1}
    assert load(write(auto), gpu=gpu).base.dtype == expected


def test_auto_is_the_type_of_this_machines_gpu_where_none_is_named(auto, write, monkeypatch):
    monkeypatch.setattr(gpu_catalog, "local", lambda: "Tesla T4")
    monkeypatch.setattr(devices, "capability", lambda: (7, 5))
    assert load(write(auto)).base.dtype == "float16"
    auto["resources"] = {"gpus_per_trial": 0}
    assert load(write(auto)).base.dtype == "bfloat16"
    monkeypatch.setattr(gpu_catalog, "local", lambda: None)
    monkeypatch.setattr(devices, "capability", lambda: pytest.fail("loads torch for nothing"))
    auto["resources"] = {"gpus_per_trial": 1}
    assert load(write(auto)).base.dtype == "bfloat16"


def test_a_sweep_keeps_its_type_and_keys_on_other_hardware(auto, write):
    first = load(write(auto), gpu="T4")
    again = load(write(yaml.safe_load(resolved(first)), "sweep.yaml"), gpu="H100")
    assert again.base.dtype == "float16"
    assert again.spec({"lora.rank": 2}).key == first.spec({"lora.rank": 2}).key
    assert first.spec({"lora.rank": 2}).key != load(write(auto), gpu="H100").spec({"lora.rank": 2}).key


def test_auto_is_no_value_of_a_space(auto, write):
    auto["space"]["base.dtype"] = {"type": "categorical", "choices": ["auto", "float32"]}
    with pytest.raises(InputError, match=r"config.yaml:\d+:\d+: space: base.dtype = 'auto': auto is one type on each machine"):
        load(write(auto))


def test_a_plan_for_a_t4_has_its_type_and_warns_of_another(auto, write, tmp_path):
    assert not plan(load(write(auto), gpu="T4"), tmp_path, Gpus("T4")).warnings
    auto["base"]["dtype"] = "bfloat16"
    assert "T4 has no units for bfloat16" in plan(load(write(auto), gpu="T4"), tmp_path, Gpus("T4")).warnings[0]


# ---------------------------------------------------------------------- a base from another file


def test_a_base_is_taken_from_the_file_that_it_names(parts, write, tmp_path, monkeypatch):
    write({"base": {"model": "micro", "quantization": "fp4", "dtype": "float32"}, "name": "other"}, "there.yaml")
    parts["base"] = "there.yaml"
    monkeypatch.chdir("/")
    config = load(write(parts), ["base.double_quantization=false"])
    assert (config.name, config.base.quantization, config.base.double_quantization) == ("little", "fp4", False)
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path)
    assert load(write(parts, "below/config.yaml")).base == load(write(parts)).base
    assert load(write(parts), ["base=there.yaml"]).base.quantization == "fp4"


def test_a_base_that_no_file_has_is_one_line_at_its_place(parts, write, tmp_path):
    parts["base"] = "configs/models/none.yaml"
    with pytest.raises(InputError, match=r"config.yaml:\d+:\d+: base: no file 'configs/models/none.yaml'; it is neither in"):
        load(write(parts))
    write({"name": "other"}, "there.yaml")
    parts["base"] = "there.yaml"
    with pytest.raises(InputError, match=r"config.yaml:\d+:\d+: base: .*there.yaml has no section `base`"):
        load(write(parts))


def test_a_mistake_in_a_base_of_another_file_is_told_of_that_file(parts, write):
    write({"base": {"model": "micro", "quantisation": "fp4"}}, "there.yaml")
    parts["base"] = "there.yaml"
    with pytest.raises(InputError, match=r"there.yaml:3:3: unknown key 'base.quantisation'; did you mean 'quantization'"):
        load(write(parts))


# ---------------------------------------------------------------------- what is known of a model


def test_what_is_told_about_a_model_is_shown_by_plan_and_changes_no_key(parts, write, tmp_path):
    plain = load(write(parts))
    parts["about"] = {"licence": "of [ours]", "scores": [{"task": "hellaswag", "value": 59.2, "source": "arXiv 2401.02385"}]}
    config = load(write(parts))
    assert config.spec({"lora.rank": 2}).key == plain.spec({"lora.rank": 2}).key
    cells = [cell for column in table(plan(config, tmp_path), config).columns for cell in column.cells]
    assert "of [ours]" in cells  # the console prints it as text
    assert any("source: arXiv 2401.02385" in str(cell) for cell in cells)


def test_there_is_a_preset_for_each_family_of_models():
    models = " ".join(load(path).base.model for path in PRESETS).lower()
    for family in ("llama-3.2-1b", "llama-3.2-1b-instruct", "tinyllama", "pythia", "olmo", "smollm", "qwen", "gemma"):
        assert family in models


@pytest.mark.parametrize("path", PRESETS, ids=lambda path: path.stem)
def test_a_preset_is_the_papers_point_and_tells_what_is_known_with_its_sources(path):
    config = load(path, gpu="T4")
    assert config.name == path.stem
    assert (config.base.quantization, config.base.double_quantization, config.base.dtype) == ("nf4", True, "float16")
    assert (config.lora.rank, config.lora.alpha, config.lora.target_modules) == (8, 16, "qkv")
    assert (config.train.learning_rate, config.data.samples) == (2e-4, 2000)
    assert 2e-4 in config.space["train.learning_rate"].choices
    about = config.about
    assert {"parameters", "licence", "gated", "card", "paper", "scores", "checked"} <= about.keys()
    assert about["card"] == f"https://huggingface.co/{config.base.model}"
    assert about["gated"] == ("ungated_copy" in about)
    for score in about["scores"]:
        assert score.keys() == {"task", "value", "source"}
        assert "arXiv" in score["source"] or "https://" in score["source"] or "(recalled)" in score["source"]


@pytest.mark.parametrize("path", PRESETS, ids=lambda path: path.stem)
def test_a_base_is_taken_from_a_preset(path, parts, write):
    parts["base"] = str(path)
    assert load(write(parts)).base == load(path).base
