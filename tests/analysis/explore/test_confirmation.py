"""The front beside the same settings under fresh seeds."""

import dataclasses
import json

import pytest

from analysis.explore.confirmation import as_dict, confirmation, sentences, table
from analysis.report.build import report
from analysis.results.load import load
from tests.factories.sweeps import Builder


@pytest.fixture
def confirmed(tmp_path):
    """Trials 0 and 1 on the front, trained again: 0 has less gain, 1 breaks the constraint."""
    builder = Builder(tmp_path).baseline().add((30, 38)).add((26, 40)).add((24, 37))
    builder.load()
    again = Builder(tmp_path)
    again.folder = builder.folder.with_name("quickstart-confirmed")
    for rank, rights in ((2, [(26, 30)]), (1, [(27, 38), (28, 38)])):
        specs = [again.spec(rank=rank, rate=1e-4 * rank, seed=7 + n) for n in range(len(rights))]
        for spec, right in zip(specs, rights, strict=True):
            again.record(spec, right)
        keys = [spec.key for spec in specs]
        trial = {"number": len(again.trials), "key": keys[0], "keys": keys, "baseline": again.base.key}
        again.trials.append(trial | {"params": {"lora.rank": rank, "train.learning_rate": 1e-4 * rank}})
    again.load(name="quickstart-confirmed")
    (again.folder / "sweep.yaml").write_text("about: {confirms: quickstart}\n")
    return load(builder.folder)


def test_settings_are_paired_and_the_best_found_is_first(confirmed):
    one = confirmation(confirmed)
    assert [(first["number"], again["replicates"]) for first, again in one.pairs] == [(0, 2), (1, 1)]
    assert [again["commonsense.gain"] for _, again in one.pairs] == pytest.approx([7.5 / 50, 6 / 50])


def test_sentences_say_what_the_fresh_seeds_say(confirmed):
    found = sentences(confirmation(confirmed))
    assert found[0].startswith("Trial #0 was found with commonsense gain +20.0 points")
    assert "under 2 fresh seeds it has +15.0 points" in found[0]
    assert found[1] == "Of 2 confirmed settings that kept the constraint, 1 keeps it again."


def test_report_shows_found_and_confirmed_side_by_side(confirmed):
    page = report(confirmed)
    assert "Found and confirmed" in page
    shown = table(confirmation(confirmed))
    assert [column.name for column in shown.columns][:3] == ["trial", "rank", "lr"]
    assert json.dumps(as_dict(confirmation(confirmed)), allow_nan=False)


def test_settings_match_whatever_the_types_of_the_frames(confirmed):
    frame = confirmed.trials.assign(**{"lora.rank": confirmed.trials["lora.rank"].astype(float), "train.learning_rate": None})
    assert len(confirmation(dataclasses.replace(confirmed, trials=frame)).pairs) == 2


@pytest.mark.parametrize("config", ["", "about: {confirms: another}", "name: mine", "about: ["])
def test_sweep_of_that_name_that_confirms_nothing_is_left_alone(confirmed, config):
    (confirmed.folder.with_name("quickstart-confirmed") / "sweep.yaml").write_text(config)
    assert confirmation(confirmed) is None
    assert "Found and confirmed" not in report(confirmed)


def test_sweep_that_nobody_confirmed_has_no_section(builder):
    sweep = builder.baseline().add((30, 38)).load()
    assert confirmation(sweep) is None
    assert "Found and confirmed" not in report(sweep)


def test_damaged_confirmation_is_a_notice_of_the_report(confirmed):
    (confirmed.folder.with_name("quickstart-confirmed") / "manifest.json").write_text("{")
    assert "What was trained again cannot be read" in report(confirmed)
