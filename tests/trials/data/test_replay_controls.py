"""Replay controls remove one property of the replayed solutions and nothing else."""

import pytest

from tests.factories.rows import build, data
from trials.errors import InputError
from trials.spec import TrialSpec


def replayed(control: str, seed: int = 0) -> list[list[str]]:
    """Question and solution of the replayed rows."""
    found = build(
        mix={"micro/alpaca": 1.0},
        replay={"source": "micro/gsm8k", "share": 0.5, "control": control},
        template="plain",
        seed=seed,
    )
    texts = ["".join(map(chr, row.input_ids[:-1])) for row in found if row.source == "micro/gsm8k"]
    return [text.split("\n", 1) for text in texts]


def test_control_changes_only_the_replayed_solutions():
    true, mixed = replayed("true"), {}
    for control in ("permuted", "prose"):
        other = replayed(control)
        assert [question for question, _ in other] == [question for question, _ in true]
        assert all(one != two for (_, one), (_, two) in zip(other, true, strict=True))
        mixed[control] = [
            row
            for row in build(mix={"micro/alpaca": 1.0}, replay={"source": "micro/gsm8k", "share": 0.5, "control": control})
            if row.source == "micro/alpaca"
        ]
    assert mixed["permuted"] == mixed["prose"]


def test_permuted_keeps_the_format_and_prose_keeps_the_result():
    true = dict(replayed("true"))
    for question, solution in replayed("permuted"):
        assert solution.splitlines()[-1].startswith("#### ") and solution not in true[question]
    for question, solution in replayed("prose"):
        result = true[question].splitlines()[-1].removeprefix("#### ")
        assert solution.endswith(f"The answer is {result}.") and "####" not in solution and "<<" not in solution


def test_inapplicable_control_is_refused():
    with pytest.raises(InputError, match="source 'micro/alpaca' has a response without a line '#### RESULT'"):
        build(mix={"micro/gsm8k": 1.0}, replay={"source": "micro/alpaca", "share": 0.5, "control": "prose"})
    with pytest.raises(ValueError, match="the text of source `self` has none"):
        data(replay={"source": "self", "share": 0.5, "control": "prose"})


def test_control_enters_the_key_unless_it_is_the_default():
    spec = {"base": {"model": "micro", "dtype": "float32"}, "eval": {"math": {"task": "t", "metric": "acc"}}}
    replay = {"source": "micro/gsm8k", "share": 0.1}
    keys = {
        control: TrialSpec.model_validate(
            {**spec, "data": {"samples": 8, "mix": {"micro/alpaca": 1.0}, "replay": {**replay, "control": control}}}
        )
        for control in ("true", "permuted", "prose")
    }
    assert len({one.key for one in keys.values()}) == 3
    assert keys["true"].canonical()["data"]["replay"] == replay
