import json

import pytest

from analysis.metrics.names import Objective
from analysis.results.load import load
from analysis.results.manifest import Manifest, ManifestTrial, sweeps_in
from trials.errors import InputError
from trials.ledger.record import GivenUp


@pytest.mark.parametrize("text", [None, "", '{"schema": 1, "na', '{"schema": 2}', "[]", "\xff"])
def test_missing_or_broken_manifest_is_one_line(tmp_path, text):
    if text is not None:
        (tmp_path / "manifest.json").write_text(text, encoding="latin-1")
    with pytest.raises(InputError) as refused:
        load(tmp_path)
    assert "\n" not in str(refused.value)
    assert str(tmp_path) in str(refused.value)
    assert "manifest" in str(refused.value)


def test_missing_folder_and_storage_root_have_their_own_messages(usual, tmp_path):
    usual.load()
    with pytest.raises(InputError, match="the sweeps in it are quickstart"):
        load(tmp_path)
    with pytest.raises(InputError, match="no such folder"):
        load(tmp_path / "nowhere")


def test_trial_has_a_key_or_a_failure(builder):
    builder.baseline().invalid()
    del builder.trials[0]["failure"]
    with pytest.raises(InputError, match="a trial has a key, or a failure") as refused:
        builder.load()
    assert "\n" not in str(refused.value)


def manifest(**changes):
    key = "0123456789abcdef"
    trial = ManifestTrial(number=0, key=key, baseline="fedcba9876543210", params={"lora.rank": 8})
    objective = Objective(metric="math.gain", direction="maximize")
    return Manifest(schema_number=1, name="little", objectives=[objective], trials=[trial], **changes)


def test_written_manifest_reads_back(tmp_path):
    (tmp_path / "little").mkdir()
    lost = ManifestTrial(number=1, key=None, params={"lora.rank": 3}, failure="the settings contradict each other")
    beaten = manifest().trials[0].model_copy(update={"number": 2, "given_up": GivenUp(reason="beaten", seconds=1.5)})
    written = manifest(spent=[1.0, 2.0], budget=4, documents="half")
    written.trials += [lost, beaten]
    written.write(tmp_path / "little")
    assert Manifest.read(tmp_path / "little") == written
    assert sweeps_in(tmp_path) == ["little"]


def test_file_leaves_out_what_was_not_set(tmp_path):
    manifest().write(tmp_path)
    found = json.loads((tmp_path / "manifest.json").read_text())
    assert set(found) == {"schema", "name", "objectives", "trials"}
    assert set(found["trials"][0]) == {"number", "key", "baseline", "params"}


def test_keys_of_a_trial_are_those_of_its_replicates():
    (trial,) = manifest().trials
    assert trial.keys == [trial.key]
    several = ManifestTrial(**trial.model_dump() | {"keys": [trial.key, trial.baseline]})
    assert several.keys == [trial.key, trial.baseline]
    with pytest.raises(ValueError, match="the first of its keys"):
        ManifestTrial(**trial.model_dump() | {"keys": [trial.baseline]})


@pytest.mark.parametrize("value", [float("nan"), {"a": 1}, [[1]], "\0", 2**63])
def test_setting_is_a_scalar_or_a_list_of_scalars(value):
    with pytest.raises(ValueError, match="setting"):
        ManifestTrial(number=0, key=None, params={"lora.rank": value}, failure="none")


def test_criteria_refuse_an_unknown_metric():
    unknown = manifest()
    unknown.objectives = [Objective(metric="math.gian", direction="maximize")]
    with pytest.raises(InputError, match=r"did you mean math\.gain"):
        _ = unknown.criteria


def test_fields_of_a_newer_version_are_ignored(tmp_path):
    (tmp_path / "little").mkdir()
    manifest().write(tmp_path / "little")
    path = tmp_path / "little" / "manifest.json"
    whole = json.loads(path.read_text())
    path.write_text(json.dumps(whole | {"newer": 1, "objectives": [one | {"newer": 1} for one in whole["objectives"]]}))
    assert Manifest.read(tmp_path / "little").objectives == manifest().objectives


def test_imported_manifest_is_known_by_its_baselines():
    common = {"schema": 1, "name": "x", "objectives": [{"metric": "math.gain", "direction": "maximize"}]}
    assert Manifest.model_validate({**common, "baselines": ["lmeval-0123456789abcdef"]}).imported
    assert not Manifest.model_validate({**common, "baselines": ["0123456789abcdef"]}).imported
    assert not Manifest.model_validate(common).imported
