"""A config is read with its overrides, and a bad one names its line."""

import pytest
import yaml

from orchestrator.config.load import load, resolved
from tests.factories.configs import DORA, DROPOUT, problem


def test_valid_config_loads(parts, write):
    config = load(write(parts))
    assert config.spec({"lora.rank": 2}).lora.rank == 2
    assert config.spec({}).lora.rank == 4


def test_message_names_line_of_mistake(tmp_path, parts, write):
    path = write(parts)
    path.write_text(path.read_text().replace("rank: 4", "rank: -4"))
    line = path.read_text().splitlines().index("  rank: -4") + 1
    assert problem(path).startswith(f"{path}:{line}:3: lora.rank")


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
def test_password_in_override_is_hidden(parts, write, study):
    message = problem(write(parts), f"search.study={study}")
    assert message.startswith("--set search.study=***")
    assert "hunter2" not in message or study.startswith("{")


def test_resolved_config_loads_as_itself(parts, write):
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


def test_all_mistakes_are_reported_together(parts, write):
    parts["lora"]["rank"] = "four"
    parts["train"]["epoch"] = 2
    assert len(problem(write(parts)).splitlines()) == 2


def test_duplicate_key_and_broken_yaml_name_their_line(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("name: a\nname: b\n")
    assert problem(path).startswith(f"{path}:2:1: ")
    path.write_text("name: [a\n")
    assert str(path) in problem(path)
    assert "no such file" in problem(tmp_path / "none.yaml")


def test_override_changes_value_and_is_named_when_wrong(parts, write):
    path = write(parts)
    assert load(path, ["train.learning_rate=1e-3"]).train.learning_rate == 1e-3
    assert problem(path, "lora.rank=x").startswith("--set lora.rank=x: ")
    assert "expected PATH=VALUE" in problem(path, "lora.rank")


def test_override_reaches_space_keys_with_dots(parts, write):
    assert load(write(parts), ["space.lora.rank.choices=[2, 4, 8]"]).space["lora.rank"].choices == (2, 4, 8)


def test_override_reaches_field_of_preset(parts, write):
    parts["eval"]["math"] = "micro_gsm"
    config = load(write(parts), ["eval.math.documents=40"])
    assert (config.eval["math"].task, config.eval["math"].documents) == ("micro_gsm", 40)


def test_own_key_overrides_merged_key(parts, write):
    path = write(parts)
    text = path.read_text().replace("lora:\n  rank: 4\n", "lora: {alpha: 4, <<: *shared}\n")
    path.write_text("about: {shared: &shared {alpha: 2, rank: 6}}\n" + text)
    assert (load(path).lora.rank, load(path).lora.alpha) == (6, 4)


def test_numeric_text_survives_resolved_config(parts, write):
    parts["base"]["revision"] = "1234e5"
    path = write(parts)
    path.write_text(path.read_text().replace("revision: 1234e5", "revision: '1234e5'") + "about: {octal: '0o17', no: 'no'}\n")
    config = load(path)
    path.write_text(resolved(config))
    assert load(path) == config
