"""Samples are read whole or refused with file and line; their columns are those of our own evaluation."""

import json
import math

import pytest

from tests.factories.lm_eval_folder import shares, write
from trials.errors import InputError
from trials.imported import folder, samples
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


def test_metric_that_is_better_when_lower_is_refused(tmp_path):
    place = write(tmp_path, {"pretrained": "m"}, {"gsm": shares(3, 4)}, higher_is_better={"gsm": {"exact_match": False}})
    with pytest.raises(InputError, match="exact_match of gsm is better when lower"):
        read(place)


def test_metric_that_is_no_mean_of_its_documents_is_refused(tmp_path):
    place = write(tmp_path, {"pretrained": "m"}, {"gsm": shares(3, 4)}, results={"gsm": {"exact_match,strict-match": 0.5}})
    with pytest.raises(InputError, match=r"over its documents is 0.75, and results_\S+ says 0.5: that metric is no mean"):
        read(place)
