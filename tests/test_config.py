"""A config is checked completely before anything starts, and a bad one says where and what would be right."""

import pytest

from orchestrator.config import load, remix
from trials.errors import InputError


def problem(path, *overrides) -> str:
    with pytest.raises(InputError) as caught:
        load(path, overrides)
    return str(caught.value)


def test_a_good_config_loads_and_a_point_of_its_space_is_a_trial(parts, write):
    config = load(write(parts))
    assert config.spec({"lora.rank": 2}).lora.rank == 2
    assert config.spec({}).lora.rank == 4


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda p: p["lora"].update(rnak=4), "unknown key 'lora.rnak'; did you mean 'rank'?"),
        (lambda p: p["lora"].update(rank="four"), "lora.rank: input should be a valid integer"),
        (lambda p: p["data"]["mix"].update({"micro/gsm8k": 0.7}), "the shares add up to 1.2, they must add up to 1"),
        (lambda p: p["space"].update({"lora.rang": p["space"].pop("lora.rank")}), "did you mean 'lora.rank'?"),
        (
            lambda p: p["search"]["objectives"][0].update(metric="science.gain"),
            "'science.gain' names a role that is not evaluated",
        ),
        (lambda p: p["search"]["objectives"][0].update(metric="math.gian"), "no metric 'math.gian'"),
        (lambda p: p["search"].update(constraints=["math.drop < 0.1"]), "<="),
        (lambda p: p["search"].update(constraints=["science.drop <= 0.1"]), "role that is not evaluated"),
        (lambda p: p["search"].update(sampler="tpe"), "how many trials?"),
        (
            lambda p: p["space"].update({"train.learning_rate": {"type": "float", "low": 1, "high": 2}}),
            "grid sampler needs choices",
        ),
        (lambda p: p["space"]["lora.rank"].update(choices=[0, 4]), "lora.rank = 0"),
        (lambda p: p["space"].update({"data.mix.micro/other": {"type": "categorical", "choices": [0.1]}}), "name the source"),
        (lambda p: p["train"].update(batch_size=12), "not a multiple of micro_batch_size"),
        (lambda p: p.update(name="../escape"), "name: "),
        (lambda p: p["space"].update({"lora.rank": {"type": "float", "low": 2, "high": 16, "step": 1}}), "valid integer"),
    ],
)
def test_each_mistake_is_one_line_with_file_line_and_column(parts, write, change, expected):
    change(parts)
    path = write(parts)
    message = problem(path)
    assert expected in message
    assert len(message.splitlines()) == 1
    file, line, column, _ = message.split(":", 3)
    assert file == str(path)
    assert 1 <= int(line) <= len(path.read_text().splitlines())
    assert int(column) >= 1


def test_the_line_named_is_the_line_of_the_mistake(tmp_path, parts, write):
    path = write(parts)
    path.write_text(path.read_text().replace("rank: 4", "rank: -4"))
    line = path.read_text().splitlines().index("  rank: -4") + 1
    assert problem(path).startswith(f"{path}:{line}:3: lora.rank")


def test_several_mistakes_are_told_together(parts, write):
    parts["lora"]["rank"] = "four"
    parts["train"]["epoch"] = 2
    assert len(problem(write(parts)).splitlines()) == 2


def test_a_key_that_stands_twice_and_broken_yaml_are_told_with_their_line(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("name: a\nname: b\n")
    assert problem(path).startswith(f"{path}:2:1: ")
    path.write_text("name: [a\n")
    assert str(path) in problem(path)
    assert "no such file" in problem(tmp_path / "none.yaml")


def test_set_changes_a_value_and_is_named_when_it_is_wrong(parts, write):
    path = write(parts)
    assert load(path, ["train.learning_rate=1e-3"]).train.learning_rate == 1e-3
    assert problem(path, "lora.rank=x").startswith("--set lora.rank=x: ")
    assert "expected PATH=VALUE" in problem(path, "lora.rank")


def test_a_searched_share_leaves_the_rest_to_the_others_in_their_proportions():
    assert remix({"a": 0.6, "b": 0.2, "c": 0.2}, {"c": 0.6}) == {"a": 0.3, "b": 0.1, "c": 0.6}
    assert remix({"a": 0.5, "b": 0.5}, {"b": 0.0}) == {"a": 1.0, "b": 0.0}
    with pytest.raises(ValueError, match="more than 1"):
        remix({"a": 0.5, "b": 0.5}, {"a": 0.7, "b": 0.7})


def test_there_is_one_baseline_for_each_base_and_none_for_what_only_training_sees(parts, write):
    parts["space"]["base.quantization"] = {"type": "categorical", "choices": ["nf4", "none"]}
    config = load(write(parts))
    assert len(config.baseline_specs()) == 2
    assert config.budget == 4
    assert len({config.spec(point).key for point in config.grid()}) == 4


def test_set_reaches_the_space_whose_keys_have_dots(parts, write):
    assert load(write(parts), ["space.lora.rank.choices=[2, 4, 8]"]).space["lora.rank"].choices == (2, 4, 8)


def test_a_wide_range_of_whole_numbers_is_not_written_out(parts, write):
    parts["search"].update(sampler="tpe", trials=3)
    parts["space"]["train.seed"] = {"type": "int", "low": 0, "high": 2**62}
    assert load(write(parts)).budget == 3
