"""A config is checked completely before anything starts, and a bad one says where and what would be right."""

import pytest

from tests.factories.configs import problem


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda p: p["lora"].update(rnak=4), "unknown key 'lora.rnak'; did you mean 'rank'?"),
        (lambda p: p["lora"].update(rank="four"), "lora.rank: expected a whole number from 1 to 65,536, found 'four'"),
        (lambda p: p["data"]["mix"].update({"micro/gsm8k": 0.7}), "the shares add up to 1.2, they must add up to 1"),
        (lambda p: p["space"].update({"lora.rang": p["space"].pop("lora.rank")}), "did you mean 'lora.rank'?"),
        (
            lambda p: p["search"]["objectives"][0].update(metric="science.gain"),
            "'science.gain' names a role that is not evaluated",
        ),
        (lambda p: p["search"]["objectives"][0].update(metric="math.gian"), "no metric 'math.gian'"),
        (lambda p: p["search"].update(constraints=["math.drop < 0.1"]), "<="),
        (lambda p: p["search"].update(constraints=["science.drop <= 0.1"]), "role that is not evaluated"),
        (
            lambda p: p["search"].update(constraints=["math.forgetting <= 10"]),
            "every trial: forgetting is a share; for 10 % write",
        ),
        (lambda p: p["search"].update(constraints=["math.drop <= -2"]), "holds for no trial: drop is a share"),
        (lambda p: p["search"].update(constraints=["commonsense.gain >= 2"]), 'write "commonsense.gain >= 2%"'),
        (lambda p: p["search"].update(sampler="tpe"), "how many trials?"),
        (
            lambda p: p["space"].update({"train.learning_rate": {"type": "float", "low": 1, "high": 2}}),
            "grid sampler needs choices",
        ),
        (lambda p: p["space"]["lora.rank"].update(choices=[0, 4]), "lora.rank = 0"),
        (lambda p: p["space"].update({"data.mix.micro/other": {"type": "categorical", "choices": [0.1]}}), "name the source"),
        (lambda p: p["train"].update(batch_size=12), "not a multiple of micro_batch_size"),
        (lambda p: p.update(name="../escape"), "name: "),
        (
            lambda p: p["space"].update({"lora.rank": {"type": "float", "low": 2, "high": 16, "step": 1}}),
            "expected a whole number",
        ),
    ],
)
def test_each_mistake_is_one_line_with_its_position(parts, write, change, expected):
    change(parts)
    path = write(parts)
    message = problem(path)
    assert expected in message
    assert len(message.splitlines()) == 1
    file, line, column, _ = message.split(":", 3)
    assert file == str(path)
    assert 1 <= int(line) <= len(path.read_text().splitlines())
    assert int(column) >= 1
