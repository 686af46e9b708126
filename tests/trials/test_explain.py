"""Errors of a model become sentences with the key, the value found and the values allowed."""

from typing import Annotated, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from trials.explain import expected, found, kinds, leaves, nearest, problems


class Inner(BaseModel):
    model_config = ConfigDict(extra="forbid")
    rank: Annotated[int, Field(ge=1, le=64)] = 8
    init: Literal["default", "gaussian"] = "default"
    modules: Literal["qkv", "mlp"] | tuple[str, ...] = "qkv"


class Outer(BaseModel):
    model_config = ConfigDict(extra="forbid")
    lora: Inner
    samples: int


def sentences(data: object) -> set[tuple[tuple, str]]:
    with pytest.raises(ValidationError) as caught:
        Outer.model_validate(data)
    return set(problems(caught.value, Outer, data))


@pytest.mark.parametrize(
    ("lora", "place", "text"),
    [
        ({"rnak": 4}, ("lora", "rnak"), "unknown key 'lora.rnak'; did you mean 'rank'? allowed: init, modules, rank"),
        ({"rank": 0}, ("lora", "rank"), "lora.rank: expected a whole number from 1 to 64, found 0"),
        ({"rank": None}, ("lora", "rank"), "lora.rank: expected a whole number from 1 to 64, found null; give a value, or"),
        ({"init": "gausian"}, ("lora", "init"), "expected one of default, gaussian, found 'gausian'; did you mean gaussian?"),
        ({"modules": "qvk"}, ("lora", "modules"), "expected one of qkv, mlp or a list, found 'qvk'; did you mean qkv?"),
        ({"modules": "q_proj"}, ("lora", "modules"), "found 'q_proj'; a list is written [q_proj]"),
        ({"modules": {"a": 1}}, ("lora", "modules"), "expected one of qkv, mlp or a list, found keys and values (a)"),
    ],
)
def test_sentence_names_key_value_and_allowed_values(lora, place, text):
    ((where, sentence),) = sentences({"lora": lora, "samples": 1})
    assert where == place
    assert text in sentence


def test_missing_keys_of_a_section_are_one_sentence():
    assert sentences({}) == {((), "missing keys 'lora', 'samples'")}


def test_misspelt_key_is_not_missing_as_well():
    ((place, text),) = sentences({"lora": {}, "sample": 1})
    assert place == ("sample",)
    assert text.startswith("unknown key 'sample'; did you mean 'samples'?")
    assert sentences({"lora": {}, "zzz": 1}) >= {((), "missing key 'samples'")}


def test_long_values_are_truncated():
    assert found("x" * 100) == f"'{'x' * 56}..."
    assert found({"a": 1, "b": 2, "c": 3, "d": 4}) == "keys and values (a, b, c, ...)"


def test_kinds_follow_a_path_and_end_where_it_leads_nowhere():
    assert expected(kinds(Outer, ("lora", "rank"))) == ["a whole number from 1 to 64"]
    assert kinds(Outer, ("lora", "rang")) == []


def test_leaves_are_the_scalar_types():
    assert leaves(dict[str, float] | None) == {float, type(None)}
    assert leaves(Literal["a", "b"]) == {str}


@pytest.mark.parametrize(
    ("key", "meant"),
    [("rnak", "rank"), ("per_device_batch_size", "batch_size"), ("lr", "learning_rate"), ("nothing_alike_at_all", None)],
)
def test_nearest_key(key, meant):
    assert nearest(key, ["rank", "batch_size", "learning_rate"]) == meant
