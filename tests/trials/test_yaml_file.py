"""YAML files: positions, YAML 1.2, merges, and limits against hostile files."""

from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel

from trials.errors import InputError
from trials.yaml_file import YamlFile, dump

BOMB = "a: &a [1, 1]\n" + "".join(
    f"{after}: &{after} [{', '.join([f'*{before}'] * 20)}]\n" for before, after in zip("abcd", "bcde", strict=True)
)


class Model(BaseModel):
    name: str
    shares: dict[str, float] = {}


def parsed(text: str) -> YamlFile:
    return YamlFile(Path("c.yaml"), text)


def test_every_value_has_its_position():
    file = parsed("a:\n  b: [1, 2]\n")
    assert [file.where(place) for place in [("a",), ("a", "b"), ("a", "b", 1)]] == ["c.yaml:1:1", "c.yaml:2:3", "c.yaml:2:10"]
    assert file.where(("a", "nothing")) == "c.yaml:1:1", "the innermost value around it"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("010", 10),
        ("0o10", 8),
        ("1e-4", 1e-4),
        ("1_000", 1000),
        ("yes", "yes"),
        ("1:30", "1:30"),
        ("~", None),
        (".inf", float("inf")),
    ],
)
def test_plain_values_follow_yaml_1_2(text, value):
    assert parsed(f"v: {text}").data == {"v": value}


def test_own_key_overrides_a_merged_one():
    assert parsed("a: &a {x: 1, y: 1}\nb: {y: 2, <<: *a}").data["b"] == {"x": 1, "y": 2}
    assert parsed("a: &a {x: 1}\nb: &b {x: 2, y: 2}\nc: {<<: [*a, *b]}").data["c"] == {"x": 1, "y": 2}


@pytest.mark.parametrize(
    ("text", "refusal"),
    [
        ("a: 1\na: 2", "c.yaml:2:1: not YAML: key 'a' stands here twice"),
        ("a: &a [*a]", "would never end"),
        ("[" * 60, "nested more than 50 levels deep"),
        (BOMB, "more than 50,000 values"),
        ("a: !!python/object:os.system x", "c.yaml:1:4: not YAML"),
        ("a: 2024-02-31", "2024-02-31 is no date"),
        ("a:\n\tb: 1", "indent with blanks, not tabs"),
        ("- 1", "c.yaml:1:1: expected keys and values, found a list"),
    ],
    ids=["doubled key", "recursion", "depth", "alias bomb", "tag", "date", "tab", "list"],
)
def test_refusal_is_one_line_with_its_position(text, refusal):
    with pytest.raises(InputError) as caught:
        parsed(text)
    assert refusal in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_check_reports_every_problem_at_its_line():
    with pytest.raises(InputError) as caught:
        parsed("name: 1\nshares:\n  a: x\n").check(Model)
    assert [line.split(": ")[0] for line in str(caught.value).splitlines()] == ["c.yaml:1:1", "c.yaml:3:3"]


def test_section_of_another_file_keeps_its_positions():
    file, other = parsed("name: a\nshares: {}\n"), YamlFile(Path("other.yaml"), "\n\nshares: {a: x}\n")
    file.take("shares", other)
    assert file.where(("shares", "a")) == "other.yaml:3:10"


@pytest.mark.parametrize("text", ["010", "yes", "1e-4", "1:30", "~", "2024-01-01", "=", "<<", "a: b", "é"])
def test_dump_reads_back_here_and_by_yaml_1_1(text):
    assert parsed(dump({"v": text})).data == yaml.safe_load(dump({"v": text})) == {"v": text}


def test_file_that_is_not_utf_8_is_refused_at_its_byte(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_bytes(b"a: 1\nb: \xe9")
    with pytest.raises(InputError, match=r"c\.yaml:2:4: the byte 0xe9 is not UTF-8"):
        YamlFile(path)
