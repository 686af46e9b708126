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


def test_a_control_changes_the_replayed_solutions_and_nothing_else():
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


def test_permuted_solutions_keep_the_format_and_prose_keeps_the_result():
    true = dict(replayed("true"))
    for question, solution in replayed("permuted"):
        assert solution.splitlines()[-1].startswith("#### ") and solution not in true[question]
    for question, solution in replayed("prose"):
        result = true[question].splitlines()[-1].removeprefix("#### ")
        assert solution.endswith(f"The answer is {result}.") and "####" not in solution and "<<" not in solution


def test_a_control_that_a_source_cannot_have_is_one_line():
    with pytest.raises(InputError, match="source 'micro/alpaca' has a response without a line '#### RESULT'"):
        build(mix={"micro/gsm8k": 1.0}, replay={"source": "micro/alpaca", "share": 0.5, "control": "prose"})
    with pytest.raises(ValueError, match="the text of source `self` has none"):
        data(replay={"source": "self", "share": 0.5, "control": "prose"})


def test_the_key_knows_the_control_and_no_key_of_before_changes():
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
