"""Samples are read whole or refused with file and line; their columns are those of our own evaluation."""

import json
import math

import pytest

from tests.factories.lm_eval_folder import CONFIGS, shares, write
from trials.errors import InputError
from trials.imported import folder, samples
from trials.ledger.outcomes import Scale
from trials.spec import Evaluation

GSM = Evaluation(
    task="gsm", metric="exact_match", filter="strict-match", flexible="flexible-extract", marker="####", engine="hflm"
)
SWAG = Evaluation(task="swag", metric="acc_norm")


@pytest.fixture
def place(tmp_path):
    return write(tmp_path, {"pretrained": "m"}, {"gsm": shares(3, 4), "swag": shares(1, 4)})


def read(place, evaluation=GSM):
    (model,) = folder.models(place)
    return samples.documents("role", evaluation, model.runs)


def change(place, task, edit):
    """Edits the lines of a samples file; returns its path."""
    path = next(place.glob(f"samples_{task}_*"))
    path.write_text("".join(f"{line}\n" for line in edit(path.read_text().splitlines())))
    return path


def test_generated_task_has_filters_and_marker(place):
    found = read(place)
    assert found["score"].tolist() == found["strict"].tolist() == found["marker"].tolist() == [1, 1, 1, 0]
    assert found["flexible"].tolist() == [1, 1, 1, 1]
    assert found["question"][0] == "Question: How much is 0 and 1?\nAnswer:"  # without the few-shot rows


def test_multiple_choice_has_margin_and_bits_of_the_gold_ending(place):
    found = read(place, SWAG)
    assert found["margin"][0] == -1.5 / len("sings.") + 20.25 / len("flies away.")
    assert found["choices"][0] == 2
    assert found["bits"][0] == 1.5 / math.log(2)
    assert found["bytes"][0] == len(" sings.")
    assert found["response"][0] == "-1.5000 -20.2500"
    assert found["question"][0] == "Situation 0: she\n(0) sings.\n(1) flies away."


def test_gold_that_may_be_a_place_or_a_choice_gives_no_margin(place):
    def numbered(lines):
        for line in lines:
            entry = json.loads(line)
            for one, text in zip(entry["arguments"].values(), (" 1", " 0"), strict=True):
                one["arg_1"] = text
            yield json.dumps(entry)

    change(place, "swag", numbered)
    assert "margin" not in read(place, SWAG)


DAMAGE = {
    "cut off within a line": (lambda lines: [*lines[:-1], lines[-1][:40]], r"gsm_\S+:8: not whole JSON"),
    "cut off between lines": (lambda lines: lines[:-1], "the samples of 4 documents are expected, found 3 of filter flexible"),
    "without a filter's lines and more": (lambda lines: lines[:3], "4 documents are expected, found 3 of filter strict-match"),
    "empty": (lambda lines: [], "4 documents are expected, found none"),
    "twice": (lambda lines: [*lines[:4], lines[0], *lines[5:]], r"gsm_\S+:5: document 0 stands there twice, first in line 1"),
    "of other documents": (lambda lines: [lines[0].replace('doc_hash": "', 'doc_hash": "0'), *lines[1:]], "task_hashes"),
    "without hashes": (lambda lines: [line.replace("prompt_hash", "x") for line in lines], r"gsm_\S+:1: .*no prompt_hash"),
    "not an object": (lambda lines: ["3", *lines], r"gsm_\S+:1: .*no doc_id"),
    "without the metric's value": (lambda lines: [line.replace('"exact_match":', '"x":') for line in lines], ":1: .*no value"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damaged_samples_are_one_line_with_file_and_line(name, place):
    edit, expected = DAMAGE[name]
    path = change(place, "gsm", edit)
    with pytest.raises(InputError, match=expected) as caught:
        read(place)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_bytes_that_are_no_text_are_one_line(place):
    path = next(place.glob("samples_gsm_*"))
    path.write_bytes(path.read_bytes().replace(b"How", b"\xffow", 1))
    with pytest.raises(InputError, match=r"gsm_\S+:1: not whole JSON"):
        read(place)


def test_missing_samples_name_the_option(place):
    next(place.glob("samples_gsm_*")).unlink()
    with pytest.raises(InputError, match=r"there are no such samples beside results_.*again with --log_samples"):
        read(place)


def test_perplexity_is_the_one_that_lm_eval_wrote(tmp_path):
    place = write(tmp_path, {"pretrained": "m"}, {"notes": shares(3, 4)})
    (model,) = folder.models(place)
    found = read(place, Evaluation(task="notes", metric="word_perplexity", filter="none"))
    assert math.exp(found["score"].sum() / found["weight"].sum()) == pytest.approx(
        model.newest.metrics("notes")["word_perplexity,none"]
    )
    assert found["question"][0] == "Note 0 of the shop."


@pytest.mark.parametrize(
    ("task", "metric", "expected"),
    [
        ("notes", "word_perplexity", Scale(form="exp", higher_is_better=False)),
        ("notes", "bits_per_byte", Scale(form="ratio", higher_is_better=False)),
        ("sums", "distance", Scale(higher_is_better=False)),
        ("gsm", "exact_match", Scale()),
    ],
)
def test_form_and_direction_are_those_that_lm_eval_wrote(tmp_path, task, metric, expected):
    (model,) = folder.models(write(tmp_path, {"pretrained": "m"}, {task: shares(3, 4)}))
    assert samples.scale("role", Evaluation(task=task, metric=metric), model.runs) == expected


def test_tasks_that_are_aggregated_in_two_ways_are_no_role(tmp_path):
    (model,) = folder.models(
        write(
            tmp_path,
            {"pretrained": "m"},
            {"gsm": shares(3, 4), "swag": shares(3, 4)},
            higher_is_better={"swag": {"acc": False}},
        )
    )
    with pytest.raises(
        InputError, match="role: acc of gsm and swag is aggregated in two ways; name a role for each with --role"
    ):
        samples.scale("role", Evaluation(task=("gsm", "swag"), metric="acc"), model.runs)


def test_metric_of_all_documents_together_is_refused(tmp_path):
    config = {**CONFIGS["swag"], "metric_list": [{"metric": "acc", "aggregation": "f1"}]}
    place = write(tmp_path, {"pretrained": "m"}, {"swag": shares(3, 4)}, configs={"swag": config})
    with pytest.raises(InputError, match=r"results_\S+: task swag: acc is a f1 of all documents"):
        read(place, Evaluation(task="swag", metric="acc"))


def test_value_that_is_no_number_of_a_document_is_one_line_with_its_place(tmp_path):
    place = write(tmp_path, {"pretrained": "m"}, {"notes": shares(3, 4)})
    path = change(place, "notes", lambda lines: [line.replace("[-8.0, 5]", "[]") for line in lines])
    with pytest.raises(InputError, match=rf"{path}:2: word_perplexity of this document is \[\], which is no number") as caught:
        read(place, Evaluation(task="notes", metric="word_perplexity"))
    assert "\n" not in str(caught.value)


def test_metric_that_is_no_mean_of_its_documents_is_refused(tmp_path):
    place = write(tmp_path, {"pretrained": "m"}, {"gsm": shares(3, 4)}, results={"gsm": {"exact_match,strict-match": 0.5}})
    with pytest.raises(InputError, match=r"over its documents is 0.75, and results_\S+ says 0.5: that metric is no mean"):
        read(place)
