"""manifest.json: what is written, what is read back, and what counts as seen."""

import pytest

from analysis.results.manifest import Manifest
from orchestrator.config.model import SweepConfig
from orchestrator.sweep.manifest import CONTRADICTORY, RunningManifest
from orchestrator.sweep.queue import PendingTrial
from trials.errors import InputError
from trials.ledger.record import GivenUp


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def manifest(config, tmp_path) -> RunningManifest:
    return RunningManifest(config, tmp_path, Clock())


def trial(config: SweepConfig, number: int, rank: int, **fields) -> PendingTrial:
    settings = {"lora.rank": rank}
    return PendingTrial(number, settings, config.specs(settings), **fields)


def test_entries_are_read_back(config, manifest, tmp_path):
    manifest.note(trial(config, 0, 2), given_up=GivenUp(reason="beaten", seconds=1.0))
    manifest.note(trial(config, 1, 4, free=True))
    manifest.note(PendingTrial(2, {"lora.rank": 3}, []), CONTRADICTORY)
    manifest.write((10.0, 20.0), at_once=True)
    found = Manifest.read(tmp_path)
    assert found.spent == [10.0, 20.0]
    assert [(one.key is None, one.free, one.failure) for one in found.trials] == [
        (False, False, None),
        (False, True, None),
        (True, False, CONTRADICTORY),
    ]
    assert found.trials[0].given_up == GivenUp(reason="beaten", seconds=1.0)


def test_derived_trials_do_not_count(config, manifest):
    manifest.note(trial(config, 0, 2))
    manifest.note(trial(config, 1, 4, free=True))
    assert manifest.counted == 1


def test_noted_and_excluded_settings_are_seen(config, manifest):
    manifest.note(trial(config, 0, 2))
    manifest.count_as_seen([config.spec({"lora.rank": 4}).key])
    assert [manifest.seen({"lora.rank": rank}) for rank in (2, 4, 8)] == [True, True, False]


def test_trials_that_the_study_lost_stay_in_the_file(config, manifest, tmp_path):
    for number, rank in enumerate((2, 4)):
        manifest.note(trial(config, number, rank))
    manifest.write((1.0, 2.0), at_once=True)
    known = config.spec({"lora.rank": 2}).key
    again = RunningManifest(config, tmp_path, Clock())
    assert again.recall({known}) == [1.0, 2.0]
    assert [one.params for one in again.missing.values()] == [{"lora.rank": 4}]
    again.note(trial(config, 0, 2))
    again.write((1.0, 2.0), at_once=True)
    assert [one.number for one in Manifest.read(tmp_path).trials] == [0, 1]


def test_second_write_within_a_second_is_skipped(config, manifest, tmp_path):
    manifest.write((0.0, 0.0))
    manifest.note(trial(config, 0, 2))
    manifest.write((0.0, 0.0))
    assert manifest.unwritten
    manifest._clock.now = 2.0
    manifest.write((0.0, 0.0))
    assert len(Manifest.read(tmp_path).trials) == 1


def test_damaged_file_is_an_input_error(manifest, tmp_path):
    assert manifest.recall(set()) == []
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(InputError):
        manifest.recall(set())
