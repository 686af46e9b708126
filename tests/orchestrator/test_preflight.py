"""A sweep's inputs are checked before it starts."""

import json
from pathlib import Path

import pytest

from orchestrator.config.model import SweepConfig
from orchestrator.planning.plan import Gpus, plan
from orchestrator.preflight import chat_warnings, check_inputs
from tests.factories.own_tasks import CHOICES, DISTANCE, NOTES, SHOP
from trials import mix
from trials.errors import InputError


def test_inputs_are_checked_at_the_corners_of_the_space(parts):
    parts["space"] = {"data.samples": {"type": "categorical", "choices": [16, 5_000]}}
    with pytest.raises(InputError, match="needs 2500 rows"):
        check_inputs(SweepConfig.model_validate(parts))


@pytest.mark.parametrize("check", [check_inputs, lambda config: plan(config, Path.cwd(), Gpus("T4"))])
def test_rows_of_every_replicate_are_checked(parts, tmp_path, monkeypatch, check):
    monkeypatch.chdir(tmp_path)
    seeds = [set(mix.permutation("mine", 40, seed)[:8].tolist()) for seed in (0, 1)]
    held_out = set(mix.permutation("mine, held out", 40, 0)[:4].tolist())
    wrong = min(seeds[1] - seeds[0] - held_out)
    lines = [{"messages": [{"role": "user", "content": f"q{n}"}, {"role": "assistant", "content": f"a{n}"}]} for n in range(40)]
    lines[wrong]["messages"].insert(1, {"role": "tool", "content": "x"})
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    parts["data"] = {"samples": 4, "mix": {"mine": 1.0}, "sources": {"mine": {"dataset": "rows.jsonl"}}, "template": "plain"}
    parts["search"]["replicates"] = 1
    check(SweepConfig.model_validate(parts))
    parts["search"]["replicates"] = 2
    with pytest.raises(InputError, match=rf"row {wrong + 1}: data.template plain has no place for messages\[1\]"):
        check(SweepConfig.model_validate(parts))


@pytest.mark.parametrize(
    ("template", "roles", "expected"),
    [
        ("alpaca", {}, []),
        ("chat", {"math", "commonsense"}, []),
        ("chat", {"math"}, ["eval.commonsense does not use the chat template that the training uses"]),
        ("plain", {"math"}, ["eval.math uses the chat template, the training does not (data.template: plain)"]),
    ],
)
def test_chat_template_in_training_or_evaluation_alone_is_a_warning(parts, template, roles, expected):
    parts["data"]["template"] = template
    for role in roles:
        parts["eval"][role]["chat_template"] = True
    found = chat_warnings(SweepConfig.model_validate(parts))
    assert len(found) == len(expected)
    for line, beginning in zip(found, expected, strict=True):
        assert line.startswith(beginning)


def test_searched_chat_template_is_compared_at_every_point(parts):
    parts["space"] = {"eval.math.chat_template": {"type": "categorical", "choices": [True, False]}}
    assert len(chat_warnings(SweepConfig.model_validate(parts))) == 1


def test_search_for_a_larger_error_is_refused(parts):
    parts["eval"]["near"] = {**DISTANCE, "include": str(SHOP)}
    parts["search"]["objectives"] = [{"metric": "near.value", "direction": "maximize"}]
    parts["search"]["constraints"] = []
    with pytest.raises(
        InputError, match=r"distance of eval.near is better when lower; write near.value with direction: minimize"
    ):
        check_inputs(SweepConfig.model_validate(parts))
    parts["search"]["objectives"] = [{"metric": "near.value", "direction": "minimize"}]
    check_inputs(SweepConfig.model_validate(parts))


def test_search_for_fewer_right_answers_is_refused(parts):
    parts["search"]["objectives"] = [{"metric": "math.drop", "direction": "minimize"}]
    parts["search"]["objectives"] += [{"metric": "math.value", "direction": "minimize"}]
    with pytest.raises(InputError, match=r"^search.objectives.1: exact_match of eval.math is better when higher"):
        check_inputs(SweepConfig.model_validate(parts))


PLAN_AND_RUN = pytest.mark.parametrize("check", [check_inputs, lambda config: plan(config, Path.cwd(), Gpus("T4"))])


@PLAN_AND_RUN
@pytest.mark.parametrize(
    ("fields", "metric", "kind"),
    [
        ({**NOTES, "include": str(SHOP)}, "gold_bpb", "loglikelihood_rolling"),
        ({**NOTES, "include": str(SHOP)}, "lost_adjusted", "loglikelihood_rolling"),
        ({**CHOICES, "include": str(SHOP), "marker": "####"}, "marker_drop", "multiple_choice"),
        ({**CHOICES, "include": str(SHOP), "marker": "####"}, "gold_bpb_word_delta", "multiple_choice"),
        ({"task": "wikitext", "metric": "word_perplexity"}, "gold_bpb_delta", "loglikelihood_rolling"),  # data not at hand
    ],
)
def test_metric_that_no_task_of_its_role_has_is_refused(parts, check, fields, metric, kind):
    parts["eval"]["own"] = fields
    parts["search"]["constraints"] = ["math.drop <= 0.5", f"own.{metric} <= 0.1"]
    with pytest.raises(
        InputError, match=rf"^search.constraints.1: own.{metric} is never defined.* {kind} .*; there are own.value"
    ):
        check(SweepConfig.model_validate(parts))
    parts["search"]["constraints"] = []
    parts["search"]["objectives"] = [{"metric": f"own.{metric}", "direction": "minimize"}]
    with pytest.raises(InputError, match=rf"^search.objectives.0: own.{metric} is never defined"):
        check(SweepConfig.model_validate(parts))


@PLAN_AND_RUN
def test_metric_that_a_task_of_its_role_has_is_taken(parts, check):
    parts["eval"]["own"] = {**CHOICES, "include": str(SHOP)}
    parts["eval"]["math"]["marker"] = "####"
    parts["search"]["constraints"] = ["own.gold_bpb <= 9", "math.marker_drop <= 0.5", "math.gold_bpb_word_delta <= 1"]
    check(SweepConfig.model_validate(parts))


@pytest.mark.parametrize(
    ("space", "expected"),
    [
        ({"lora.block_size": {"type": "int", "low": 16, "high": 32}}, "lora.block_size: 17 does not divide the 128 inputs"),
        ({"lora.block_size": {"type": "categorical", "choices": [16, 48]}}, "lora.block_size: 48 does not divide"),
        (
            {"lora.rank": {"type": "int", "low": 1, "high": 65}, "lora.method": {"type": "categorical", "choices": ["shira"]}},
            "64 at most",
        ),
    ],
)
def test_method_that_does_not_fit_a_layer_at_some_point_is_refused(parts, space, expected):
    parts["lora"]["method"] = "oft"
    parts["space"] |= space
    with pytest.raises(InputError, match=expected):
        check_inputs(SweepConfig.model_validate(parts))


def test_searched_setting_that_unsloth_lacks_is_refused(parts):
    parts["train"]["backend"] = "unsloth"
    parts["base"]["dtype"] = "bfloat16"
    parts["space"]["lora.method"] = {"type": "categorical", "choices": ["lora", "oft"]}
    with pytest.raises(InputError, match=r"train\.backend unsloth does not go with lora\.method oft"):
        check_inputs(SweepConfig.model_validate(parts))
