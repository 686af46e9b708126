"""Only answers to the same documents, prompts and settings are pairs."""

import json

import pytest

from tests.factories.lm_eval_folder import CONFIGS, shares, write
from trials.errors import InputError
from trials.imported import folder, pairing, records, roles

RIGHT = {"gsm": shares(3, 6)}


def both(place):
    found = {model.name: model for model in folder.models(place)}
    trial = records.spec(found["b"], roles.evaluations(found["b"], []))
    return records.measured(found["b"], trial, True), records.measured(found["t"], trial, False)


def refused(place):
    with pytest.raises(InputError) as caught:
        pairing.check(*both(place))
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def tune(tmp_path):
    write(tmp_path, {"pretrained": "b"}, RIGHT)
    return write(tmp_path, {"pretrained": "t"}, RIGHT)


def test_same_documents_pair(tune):
    pairing.check(*both(tune.parent))
    assert list(pairing.differences(*(one.record for one in both(tune.parent)))) == []


@pytest.mark.parametrize(
    ("name", "what"),
    [("doc_hash", "is another document"), ("prompt_hash", "has another prompt"), ("target_hash", "has another target")],
)
def test_other_checksum_is_refused_with_file_and_line(name, what, tune):
    path, results = next(tune.glob("samples_*")), next(tune.glob("results_*"))
    lines = path.read_text().splitlines()
    entry = json.loads(lines[2])
    for place in (2, 8):  # both filters' lines of document 2
        lines[place] = lines[place].replace(entry[name], "0" * 64)
    path.write_text("\n".join(lines))
    results.write_text(json.dumps({**json.loads(results.read_text()), "task_hashes": {}}))
    assert f"{path}:3: document 2 of gsm {what} than the base's" in refused(tune.parent)


def test_fewer_documents_are_refused(tune):
    write(tune.parent, {"pretrained": "t"}, {"gsm": shares(3, 5)})
    assert "document 5 of gsm is missing, which the base has" in refused(tune.parent)


def test_more_documents_are_refused_with_file_and_line(tune):
    write(tune.parent, {"pretrained": "t"}, {"gsm": shares(3, 7)})
    text = refused(tune.parent)
    assert ":7: document 6 of gsm is not among the base's" in text
    assert "it has 7 documents, the base 6" in text


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"configs": {"gsm": {**CONFIGS["gsm"], "num_fewshot": 5}}}, "task gsm ran with num_fewshot 5, the base with 2"),
        ({"configs": {"gsm": {**CONFIGS["gsm"], "generation_kwargs": {}}}}, "task gsm ran with generation_kwargs {}"),
        ({"versions": {"gsm": 2.0}}, "task gsm ran with version 2.0, the base with 1.0"),
    ],
)
def test_other_settings_of_a_task_are_refused(changes, what, tune):
    write(tune.parent, {"pretrained": "t"}, RIGHT, **changes)
    assert what in refused(tune.parent)


def test_setting_that_the_tune_alone_has_is_refused(tune):
    write(tune.parent, {"pretrained": "t"}, RIGHT, configs={"gsm": {**CONFIGS["gsm"], "repeats": 4}})
    assert "task gsm ran with repeats 4, the base with unset" in refused(tune.parent)


def test_other_versions_and_types_are_a_note(tune):
    config = {"model_args": {"pretrained": "t", "dtype": "auto"}, "model_dtype": "torch.float16"}
    write(tune.parent, {"pretrained": "t"}, RIGHT, lm_eval_version="0.4.9", config=config)
    base, tuned = both(tune.parent)
    pairing.check(base, tuned)
    (note,) = pairing.differences(base.record, tuned.record)
    assert "lm-eval 0.4.9 instead of 0.4.13, dtype float16 instead of float32" in note


def test_same_type_under_two_arguments_is_no_note(tune):
    config = {"model_args": {"pretrained": "t", "dtype": "auto"}, "model_dtype": "torch.float32"}
    write(tune.parent, {"pretrained": "t"}, RIGHT, config=config)
    assert list(pairing.differences(*(one.record for one in both(tune.parent)))) == []


def test_other_direction_of_a_metric_is_refused(tune):
    write(tune.parent, {"pretrained": "t"}, RIGHT, higher_is_better={"gsm": {"exact_match": False}})
    assert "exact_match is a mean that is better when lower, the base's is a mean that is better when higher" in refused(
        tune.parent
    )
