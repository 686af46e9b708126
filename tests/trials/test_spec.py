"""A trial's key names what its numbers depend on, and nothing else."""

from trials.spec import TrialSpec


def changed(spec: TrialSpec, section: str, **values) -> TrialSpec:
    return spec.model_copy(update={section: getattr(spec, section).model_copy(update=values)})


def test_key_survives_a_round_trip_and_changes_with_every_setting(spec):
    assert TrialSpec.model_validate_json(spec.model_dump_json()).key == spec.key
    others = [
        changed(spec, "base", revision="x"),
        changed(spec, "base", quantization="fp4"),
        changed(spec, "data", seed=1),
        changed(spec, "data", samples=33),
        changed(spec, "lora", rank=5),
        changed(spec, "train", learning_rate=1e-5),
        changed(spec, "train", seed=1),
    ]
    assert len({spec.key, *(other.key for other in others)}) == len(others) + 1


def test_baseline_is_independent_of_the_training(spec):
    other = changed(changed(spec, "lora", rank=32), "train", learning_rate=1e-5)
    assert other.baseline().key == spec.baseline().key != spec.key
    assert changed(spec, "base", quantization="fp4").baseline().key != spec.baseline().key


def test_source_without_share_is_not_in_the_key(spec):
    alone = changed(spec, "data", mix={"micro/alpaca": 1.0})
    with_zero = changed(spec, "data", mix={"micro/alpaca": 1.0, "micro/gsm8k": 0.0})
    assert alone.key == with_zero.key
