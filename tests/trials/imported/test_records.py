"""Records of imported models: their key comes from content, their scores from documents."""

import re

import pytest

from tests.factories.lm_eval_folder import LATER, base_and_tunes, shares, write
from trials.errors import InputError
from trials.imported import folder, records, roles
from trials.ledger.outcomes import Scale


def measured(place, name="org/base"):
    found = {model.name: model for model in folder.models(place)}
    trial = records.spec(found["org/base"], roles.evaluations(found["org/base"], []))
    return records.measured(found[name], trial, name == "org/base")


def test_key_is_no_trials_key(tmp_path):
    one = measured(base_and_tunes(tmp_path)).record
    assert re.fullmatch(r"lmeval-[0-9a-f]{16}", one.key)
    assert not re.fullmatch(r"lmeval-[0-9a-f]{16}", one.spec.key)


def test_key_depends_on_content_and_not_on_place_or_time(tmp_path):
    first = measured(base_and_tunes(tmp_path / "a"), "me/careful").record.key
    assert measured(base_and_tunes(tmp_path / "b"), "me/careful").record.key == first
    again = {"gsm": shares(49), "swag": shares(40)}
    write(tmp_path / "b", {"pretrained": "org/base", "peft": "me/careful"}, again, LATER)
    assert measured(tmp_path / "b", "me/careful").record.key == first
    again["swag"] = shares(41)
    write(tmp_path / "b", {"pretrained": "org/base", "peft": "me/careful"}, again, LATER)
    assert measured(tmp_path / "b", "me/careful").record.key != first


def test_models_with_the_same_answers_have_their_own_keys(tmp_path):
    base_and_tunes(tmp_path)
    write(tmp_path, {"pretrained": "org/base", "peft": "me/copy"}, {"gsm": shares(49), "swag": shares(40)})
    assert measured(tmp_path, "me/copy").record.key != measured(tmp_path, "me/careful").record.key


def test_scores_are_means_of_documents_by_half(tmp_path):
    one = measured(base_and_tunes(tmp_path))
    halves = one.record.halves["gsm"]
    assert one.record.scores["gsm"].value == 50 / 60
    assert halves["search"]["score"].n + halves["report"]["score"].n == 60
    assert {"question", "cluster"} <= set(one.documents)
    assert not {"question", "cluster"} & set(measured(tmp_path, "me/careful").documents)


def test_record_says_how_it_was_measured(tmp_path):
    one = measured(base_and_tunes(tmp_path), "me/careful").record
    assert one.imported.model == "me/careful"
    assert one.imported.tasks["gsm"]["num_fewshot"] == 2
    assert one.versions == {"lm-eval": "0.4.13", "transformers": "5.23.0"}
    assert one.seconds == {"evaluate": 12.5}
    assert (one.spec.base.model, one.spec.base.dtype, one.spec.is_baseline) == ("org/base", "float32", True)


def test_task_that_a_tune_lacks_is_one_line(tmp_path):
    base_and_tunes(tmp_path)
    write(tmp_path, {"pretrained": "org/base", "peft": "me/half"}, {"gsm": shares(1)})
    with pytest.raises(InputError, match="me/half has no results of swag, which the base has"):
        measured(tmp_path, "me/half")


def test_record_has_the_scale_of_each_role_that_is_no_mean_of_shares(tmp_path):
    write(tmp_path, {"pretrained": "org/base"}, {task: shares(5, 9) for task in ("gsm", "notes", "sums")})
    one = measured(tmp_path).record
    assert one.scales == {
        "notes": Scale(form="exp", higher_is_better=False, share=False),
        "sums": Scale(higher_is_better=False),
    }
    (found,) = (model.newest.metrics("notes") for model in folder.models(tmp_path))
    assert one.scores["notes"].value == pytest.approx(found["word_perplexity,none"])
    assert one.scores["sums"].value == pytest.approx(4 * 0.5 / 9)
