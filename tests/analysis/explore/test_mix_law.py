"""The law of the mix of a sweep, in words, as a table and as numbers."""

import dataclasses
import json

import numpy as np
import pytest

from analysis.explore.mix_law import as_dict, frame, law, laws, sentences, table
from analysis.metrics.names import Constraint
from analysis.report.build import report
from tests.factories.mixed_sweeps import MIX, mixed
from tests.factories.sweeps import Builder
from trials.errors import InputError


def keeps(share):
    return 39 - 15 * np.exp(-8 * share)


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    return mixed(Builder(tmp_path_factory.mktemp("planted")), keeps)


def test_sentence_names_the_share_that_keeps_the_constraint(planted):
    (text,) = sentences(laws(planted))
    assert text.startswith("Math forgetting within 10 %: from a gsm8k share of 0.")
    found = laws(planted)[1].needed
    assert found.low <= 0.2 <= found.high  # 36 of 40 are right from a share of 0.2 on


def test_of_two_sources_the_helpful_one_is_named(planted):
    found = laws(planted)
    assert [(one.metric, one.source) for one in found][1] == ("math.forgetting", "gsm8k")
    assert len(found) == 2
    other = law(planted, "math.forgetting", "alpaca").needed
    assert other.verdict == "up to" and other.share == pytest.approx(1 - found[1].needed.share, abs=0.01)


def test_mix_without_effect_cannot_be_told(builder):
    (text,) = sentences(laws(mixed(builder, lambda share: 36)))
    assert "these trainings cannot tell which" in text


def test_other_bound_has_another_share(planted):
    strict, lax = (law(planted, "math.forgetting", "gsm8k", Constraint("math.forgetting", "<=", at)) for at in (0.1, 0.15))
    assert lax.needed.share < strict.needed.share


def test_few_trainings_are_said_to_be_few(builder):
    found = laws(mixed(builder, keeps, trials=10))
    assert [one.response for one in found] == [None, None]
    (text,) = sentences(found)
    assert text.endswith("depend on the mix: 12 finished trainings are needed beside so many other settings, and there are 10.")


def test_few_shares_are_said_to_be_few(builder):
    assert "4 different shares are needed, and there are 2" in sentences(laws(mixed(builder, keeps, levels=2)))[0]


def test_setting_that_moved_with_the_share_is_named_as_the_reason(planted):
    trials = planted.trials.assign(**{"lora.rank": 2 ** (10 * planted.trials["data.mix.gsm8k"])})
    assert "the share moved together with other settings" in sentences(laws(dataclasses.replace(planted, trials=trials)))[0]


def test_derived_points_take_no_part(planted):
    records = dict(planted.records)
    for key in planted.trials["key"][:7]:
        spec = records[key].spec
        derived = spec.model_copy(update={"derive": spec.derive.model_copy(update={"strength": 0.5})})
        records[key] = records[key].model_copy(update={"spec": derived})
    assert laws(dataclasses.replace(planted, records=records))[0].trainings == len(planted.trials) - 7


def test_proportions_of_the_other_sources_are_another_setting(planted):
    records = dict(planted.records)
    for number, key in enumerate(planted.trials["key"]):
        spec = records[key].spec
        rest, part = spec.data.mix["alpaca"], (0.2, 0.5, 0.8)[number % 3]
        mix = {**spec.data.mix, "alpaca": rest * part, "chats": rest * (1 - part)}
        data = spec.data.model_copy(update={"mix": mix})
        records[key] = records[key].model_copy(update={"spec": spec.model_copy(update={"data": data})})
    found = laws(dataclasses.replace(planted, records=records))
    by_source = {one.source: one for one in found[3:]}
    assert by_source.keys() == {"alpaca", "gsm8k", "chats"}
    assert by_source["gsm8k"].needed.share == pytest.approx(law(planted, "math.forgetting", "gsm8k").needed.share, abs=0.05)


def test_sweep_whose_mix_is_fixed_has_no_law_and_no_section(usual):
    sweep = usual.load()
    assert laws(sweep) == ()
    assert 'id="mix"' not in report(sweep)


def test_unknown_metric_and_source_are_named(planted):
    with pytest.raises(InputError, match=r"commonsense.gain, math.forgetting, not math.value"):
        law(planted, "math.value", "gsm8k")
    with pytest.raises(InputError, match=r"the share of wikitext does not vary .* alpaca, gsm8k"):
        law(planted, "math.forgetting", "wikitext")


def test_report_has_sentences_table_and_numbers(planted, monkeypatch):
    monkeypatch.setattr("analysis.report.build._figures", lambda sweep: [])  # they take seconds
    page = report(planted)
    assert sentences(laws(planted))[0] in page
    rows = table(laws(planted)).rows
    assert [row[1] for row in rows] == ["gsm8k", "gsm8k"] or rows[0][1] in ("alpaca", "gsm8k")
    written = json.loads(json.dumps(as_dict(laws(planted)), allow_nan=False))
    assert written[1]["needed"]["verdict"] == "from" and written[1]["tried"] == [0.0, 0.6]


def test_frame_has_a_row_for_each_law(planted):
    found = frame(laws(planted))
    assert list(found["metric"]) == ["commonsense.gain", "math.forgetting"]
    assert found.loc[1, "share_low"] < found.loc[1, "share"] < found.loc[1, "share_high"]


def test_intervals_are_rounded_outwards(planted):
    one = laws(planted)[1]
    (text,), found = sentences([one]), one.needed
    low, high = text.rpartition("95 % interval ")[2].rstrip(").").split(" to ")
    assert float(low) <= found.low and found.high <= float(high)
    assert MIX[0] in planted.space
