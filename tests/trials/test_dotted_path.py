"""A dotted path leads to the same setting in a spec, in its dump and in a file."""

from orchestrator.config.model import SweepConfig
from trials import dotted_path


def test_source_keeps_its_dots():
    assert dotted_path.keys("lora.rank") == ("lora", "rank")
    assert dotted_path.keys("data.mix.my.v1.5") == ("data", "mix", "my.v1.5")


def test_every_path_reads_its_value_in_model_and_dump(parts):
    config = SweepConfig.model_validate(parts)
    found = [
        path for name in ("base", "data", "lora", "train", "eval") for path in dotted_path.paths(name, getattr(config, name))
    ]
    assert {"lora.rank", "data.mix.micro/gsm8k", "eval.math.documents", "data.sources"} <= set(found)
    dump = config.model_dump()
    missing = object()
    for path in found:
        value = dotted_path.read(config, path, missing)
        assert value is not missing and dotted_path.read(dump, path) == value


def test_path_that_leads_nowhere_reads_the_default(spec):
    for path in ("lora.rang", "lora.rank.deeper", "nothing", "eval.science.shots"):
        assert dotted_path.read(spec, path) is None
        assert dotted_path.read(spec.model_dump(), path, 0.0) == 0.0


def test_write_makes_missing_sections():
    settings = {"lora": {"rank": 4}}
    dotted_path.write(settings, "lora.alpha", 8)
    dotted_path.write(settings, "data.mix.a.b", 0.5)
    assert settings == {"lora": {"rank": 4, "alpha": 8}, "data": {"mix": {"a.b": 0.5}}}


def test_longest_key_of_the_data_wins():
    data = {"space": {"lora.rank": {"choices": [2]}}}
    assert dotted_path.longest_keys(data, "space.lora.rank.choices") == ["space", "lora.rank", "choices"]
    assert dotted_path.longest_keys(data, "train.epochs") == ["train", "epochs"]
