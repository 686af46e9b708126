"""A config is checked completely before anything starts, and a bad one says where and what would be right."""

import pytest
import yaml

from orchestrator.config.model import SweepConfig, load, remix, resolved
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


PAIRS = [{"lora.rank": 8, "lora.alpha": 16}, {"lora.rank": 16, "lora.alpha": 32}]
DORA = {"type": "categorical", "choices": [True, False]}
DROPOUT = {"type": "float", "low": 0.0, "high": 0.2}
RATE = {"type": "float", "low": 1e-4, "high": 1e-2}


def in_space(**space):
    """Puts these parameters in place of the config's; "__" stands for a dot."""

    def change(parts):
        parts["search"].update(sampler="random", trials=4)
        parts["space"] = {path.replace("__", "."): parameter for path, parameter in space.items()}

    return change


def in_search(**search):
    return lambda parts: parts["search"].update(search)


def both(*changes):
    return lambda parts: [change(parts) for change in changes]


@pytest.mark.parametrize(
    ("change", "at", "expected"),
    [
        # paired values
        (in_space(_=[*PAIRS, {"lora.rank": 4}]), "- lora.rank: 4", "name the same settings, here lora.rank, lora.alpha"),
        (in_space(_=[{"lora.rang": 4}]), "- lora.rang: 4", "did you mean 'lora.rank'?"),
        (in_space(_=PAIRS, lora__alpha=DROPOUT), "lora.alpha:", "lora.alpha is varied by `_` already"),
        (in_space(_=[*PAIRS, dict(PAIRS[0])]), "- lora.rank: 8", "the point 8, 16 of `_` stands there twice"),
        (
            in_space(_=[*PAIRS, {"lora.rank": 0, "lora.alpha": 1}]),
            "- lora.rank: 0",
            "lora.rank = 0, lora.alpha = 1: lora.rank: expected",
        ),
        (in_space(_=[{}]), "- {}", "at least one setting"),
        (in_space(_=DORA), "_:", "a list of points stands under `_`"),
        (in_space(lora__rank=PAIRS), "lora.rank:", "one parameter under its path, but got 'lora.rank'"),
        (in_space(lora__rank={"typ": "int"}), "lora.rank:", "expected {type: categorical, float, int or simplex"),
        (in_space(lora__rank={"type": "categorical", "choices": [4, 4]}), "choices:", "a choice stands twice in [4, 4]"),
        # conditions
        (in_space(lora__dropout={**DROPOUT, "when": {"lora.use_dora": True}}), "lora.use_dora:", "there are none"),
        (
            in_space(lora__dropout={**DROPOUT, "when": {"lora.use_dor": True}}, lora__use_dora=DORA),
            "lora.use_dor:",
            "did you mean 'lora.use_dora'?",
        ),
        (
            in_space(lora__dropout={**DROPOUT, "when": {"train.learning_rate": 1}}, train__learning_rate=RATE),
            "train.learning_rate: 1",
            "`when` names a categorical parameter of the space",
        ),
        (
            in_space(lora__dropout={**DROPOUT, "when": {"lora.rank": [8, 9]}}, _=PAIRS),
            "lora.rank:",
            "lora.rank is never 9; its values are 8, 16",
        ),
        (
            in_space(
                lora__use_dora={**DORA, "when": {"train.schedule": "cosine"}},
                train__schedule={"type": "categorical", "choices": ["cosine"], "when": {"lora.use_dora": True}},
            ),
            "when:",
            "the conditions of lora.use_dora, train.schedule lead back to themselves",
        ),
        (
            in_space(lora__dropout={**DROPOUT, "when": {"lora.rank": 8, "lora.alpha": 32}}, _=PAIRS),
            "when:",
            "its conditions are never all met",
        ),
        # the simplex
        (in_space(data__mix={"type": "simplex", "sources": ["micro/gsm8k", "x"]}), "sources:", "data.mix has no source 'x'"),
        (in_space(data__mix={"type": "simplex", "sources": ["x"]}), "sources:", "a list of 2 or more entries"),
        (in_space(data__mix={"type": "simplex", "sources": ["x", "x"]}), "sources:", "a source stands twice"),
        (in_space(data__mix={"type": "simplex", "step": 0.3}), "step:", "step 0.3 does not divide the share 1"),
        (in_space(data__mix=DROPOUT), "data.mix:", "together by `type: simplex`"),
        (in_space(data__samples={"type": "simplex"}), "data.samples:", "a simplex is the whole of data.mix"),
        (
            in_space(**{"data__mix": {"type": "simplex"}, "data__mix__micro/gsm8k": DROPOUT}),
            "data.mix:",
            "data.mix.micro/gsm8k and the simplex over data.mix both set its shares",
        ),
        (
            both(in_space(data__mix={"type": "simplex"}), in_search(sampler="grid")),
            "data.mix:",
            "choices or a step for data.mix",
        ),
        # search
        (in_search(sampler="nsga4"), "sampler:", "did you mean nsga3?"),
        (in_search(sampler="tpe"), "search:", "Give trials, gpu_hours or hours; only grid ends by itself, not tpe"),
        (in_search(gpu_hours=0), "gpu_hours:", "a number above 0"),
        (in_search(replicates=0), "replicates:", "a whole number from 1"),
        (
            both(in_space(train__seed={"type": "int", "low": 0, "high": 3}), in_search(replicates=2)),
            "replicates:",
            "they differ in their seeds, and the space varies train.seed",
        ),
        (in_search(seed=-1), "seed:", "a whole number from 0"),
        (in_search(study="postgres://me@host/db"), "study:", "allowed: sqlite, journal, postgresql://USER@HOST/DATABASE"),
        (in_search(study="postgresql://me:hunter2@host/db"), "study:", "give it by PGPASSWORD or ~/.pgpass"),
        (in_search(study="postgresql://me@host/db?password=hunter2"), "study:", "give it by PGPASSWORD or ~/.pgpass"),
        (
            in_search(objectives=[{"metric": "math.drop", "direction": "minimize"}] * 2),
            "metric:",
            "'math.drop' stands here twice",
        ),
        (
            in_search(
                sampler="gp",
                trials=9,
                objectives=[
                    {"metric": f"{role}.{kind}", "direction": "maximize"}
                    for role in ("math", "commonsense")
                    for kind in ("gain", "value", "base")
                ][:5],
            ),
            "sampler:",
            "gp is too slow for more than 4 objectives",
        ),
        (
            both(in_space(train__seed={"type": "int", "low": 0, "high": 10_000}), in_search(sampler="grid")),
            "space:",
            "too many points for the grid sampler",
        ),
        # points to try first
        (in_search(first=[{"lora.rang": 4}]), "- lora.rang: 4", "'lora.rang' is not in the space; did you mean 'lora.rank'?"),
        (in_search(first=[{"lora.rank": 3}]), "- lora.rank: 3", "lora.rank = 3 is outside of choices [2, 4]"),
        (in_search(first=[{"lora.rank": True}]), "- lora.rank: true", "lora.rank = True is outside of choices [2, 4]"),
        (
            both(in_space(train__learning_rate=RATE), in_search(first=[{"train.learning_rate": 1}])),
            "- train.learning_rate: 1",
            "train.learning_rate = 1 is outside of low 0.0001, high 0.01",
        ),
        (
            both(in_space(lora__dropout={**DROPOUT, "step": 0.1}), in_search(first=[{"lora.dropout": 0.15}])),
            "- lora.dropout: 0.15",
            "outside of low 0.0, high 0.2, step 0.1",
        ),
        (
            both(
                in_space(lora__use_dora=DORA, lora__dropout={**DROPOUT, "when": {"lora.use_dora": True}}),
                in_search(first=[{"lora.dropout": 0.1}]),
            ),
            "- lora.dropout: 0.1",
            "lora.dropout has a place only in a point in which lora.use_dora is True",
        ),
        (
            both(in_space(_=PAIRS), in_search(first=[{"lora.rank": 8, "lora.alpha": 32}])),
            "- lora.rank: 8",
            "no point of `_` has",
        ),
        (
            both(in_space(_=[*PAIRS, {"lora.rank": 8, "lora.alpha": 8}]), in_search(first=[{"lora.rank": 8}])),
            "- lora.rank: 8",
            "several points of `_` have lora.rank = 8; name lora.alpha too",
        ),
        (
            both(in_space(data__mix={"type": "simplex"}), in_search(first=[{"data.mix.micro/gsm8k": 0.5}])),
            "- data.mix.micro/gsm8k: 0.5",
            "given together; data.mix.micro/alpaca is missing",
        ),
        (
            both(
                in_space(data__mix={"type": "simplex"}),
                in_search(first=[{"data.mix.micro/gsm8k": 0.5, "data.mix.micro/alpaca": 0.4}]),
            ),
            "data.mix.micro/alpaca: 0.4",
            "the shares add up to 0.9, they must add up to 1",
        ),
        # the rest
        (lambda p: p["resources"].update(gpus_per_trial=1.5), "gpus_per_trial:", "or a whole number of GPUs, but got 1.5"),
        (lambda p: p["resources"].update(accelerator_type=""), "accelerator_type:", "a text that is not empty"),
        (lambda p: p.update(trackers=["tensorbord"]), "- tensorbord", "one of tensorboard, mlflow, wandb"),
    ],
)
def test_each_mistake_in_space_and_search_is_told_at_its_place(parts, write, change, at, expected):
    change(parts)
    path = write(parts)
    message = problem(path)
    assert expected in message
    assert "hunter2" not in message
    assert len(message.splitlines()) == 1
    lines = path.read_text().splitlines()
    _, line, column, _ = message.split(":", 3)
    found = lines[int(line) - 1][int(column) - 1 :]
    assert found.startswith(at.removeprefix("- ")) or lines[int(line) - 1].strip().startswith(at), found


@pytest.mark.parametrize(
    "study",
    [
        "postgresql://me:hunter2@host/db",
        "postgresql://me:a/b@hunter2@host/db",
        "postgresql://me@host/db?sslpassword=hunter2",
        "postgresql://me@host/db?pass%77ord=hunter2",
        "mysql://me:hunter2@host/db",
        "host=h password=hunter2",
        "[hunter2",
        "{hunter2: 1}",
    ],
)
def test_a_password_in_an_override_is_not_printed(parts, write, study):
    message = problem(write(parts), f"search.study={study}")
    assert message.startswith("--set search.study=***")
    assert "hunter2" not in message or study.startswith("{")


@pytest.mark.parametrize("name", ["password", "sslpassword", "SSLPassword"])
def test_a_password_in_the_study_is_refused(parts, write, name):
    parts["search"]["study"] = f"postgresql://me@host/db?{name}=hunter2"
    assert "PGPASSWORD" in problem(write(parts))


def test_a_resolved_config_is_the_config_again(parts, write):
    parts["space"] = {
        "_": [{"base.model": "micro", "base.revision": None}, {"base.model": "other", "base.revision": "v1"}],
        "data.mix": {"type": "simplex", "step": 0.1},
        "lora.use_dora": DORA,
        "lora.dropout": {**DROPOUT, "step": 0.1, "when": {"lora.use_dora": True}},
    }
    parts["search"] |= {"gpu_hours": 2, "hours": 0.5, "replicates": 3, "first": [{"lora.use_dora": False}], "study": "journal"}
    parts["trackers"] = ["mlflow"]
    config = load(write(parts))
    again = load(write(yaml.safe_load(resolved(config)), "resolved.yaml"))
    assert again == config
    assert resolved(again) == resolved(config)


def test_replicates_differ_in_their_seeds_alone(parts, write):
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


def test_a_baseline_is_there_even_where_training_at_its_point_contradicts_the_rest_of_the_config(parts):
    parts["space"] = {
        "_": [{"base.quantization": "nf4", "train.batch_size": 8}, {"base.quantization": "none", "train.batch_size": 12}],
        "train.micro_batch_size": {"type": "categorical", "choices": [4, 8]},
    }
    config = SweepConfig.model_validate(parts)  # its own micro-batch is 8
    assert config.size() == 3
    assert len(config.baseline_specs()) == 2


def test_the_grid_does_not_multiply_what_is_not_active(parts, write):
    parts["space"] = {
        "lora.dropout": {**DROPOUT, "step": 0.1, "when": {"lora.use_dora": True}},
        "lora.use_dora": DORA,
        "data.mix": {"type": "simplex", "step": 0.5},
    }
    config = load(write(parts))
    points = list(config.grid())
    assert len(points) == config.size() == config.budget == (3 + 1) * 3
    assert len({config.spec(point).key for point in points}) == len(points)


def test_the_corners_of_a_space_need_every_base_and_the_most_of_every_source(parts, write):
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
    parts["space"]["train.seed"] = {"type": "int", "low": 0, "high": 2**31}
    assert load(write(parts)).budget == 3


def test_a_field_of_a_preset_is_set_by_its_path(parts, write):
    parts["eval"]["math"] = "micro_gsm"
    config = load(write(parts), ["eval.math.documents=40"])
    assert (config.eval["math"].task, config.eval["math"].documents) == ("micro_gsm", 40)


def test_an_own_key_overrides_a_merged_one_wherever_it_stands(parts, write):
    path = write(parts)
    text = path.read_text().replace("lora:\n  rank: 4\n", "lora: {alpha: 4, <<: *shared}\n")
    path.write_text("about: {shared: &shared {alpha: 2, rank: 6}}\n" + text)
    assert (load(path).lora.rank, load(path).lora.alpha) == (6, 4)


def test_a_short_spelling_is_the_full_one(parts, write):
    full = load(write(parts))
    parts["space"] = {"lora.rank": [2, 4]}
    parts["search"]["objectives"] = ["commonsense.gain", {"math.drop": "min"}]
    parts["search"]["constraints"] = "math.drop <= 0.5"
    assert load(write(parts)) == full


def test_text_that_looks_like_a_number_survives_the_written_config(parts, write):
    parts["base"]["revision"] = "1234e5"
    path = write(parts)
    path.write_text(path.read_text().replace("revision: 1234e5", "revision: '1234e5'") + "about: {octal: '0o17', no: 'no'}\n")
    config = load(path)
    path.write_text(resolved(config))
    assert load(path) == config


def test_a_source_may_have_dots_in_its_name(parts, write):
    parts["data"]["sources"] = {"my.v1.5": {"dataset": "d", "text": "{{text}}"}}
    parts["data"]["mix"] = {"my.v1.5": 0.5, "micro/gsm8k": 0.5}
    parts["space"] = {"data.mix.my.v1.5": [0.2, 0.4]}
    assert load(write(parts)).spec({"data.mix.my.v1.5": 0.2}).data.mix == {"my.v1.5": 0.2, "micro/gsm8k": 0.8}
