"""A key changes with the files that its numbers depend on, and with no others."""

import datetime as dt
import json
import os
import shutil
from pathlib import Path

import pandas as pd
import pytest
import yaml

import trials
from orchestrator.config.model import SweepConfig
from orchestrator.sweep.controller import SweepController
from orchestrator.sweep.earlier_run import pinned
from tests.factories.own_tasks import DISTANCE, SUMS, role, shop
from trials.errors import InputError
from trials.hub import identity, pinning
from trials.hub.hub import Hub
from trials.ledger.record import Score, TrialRecord
from trials.spec import Base
from trials.template import dated

MICRO = Path(trials.__file__).parent / "micro" / "hub" / "micro"
OWN = {"instruction": "{{instruction}}", "response": "{{output}}"}


def rows(path: Path, word: str = "yes", count: int = 40) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps({"instruction": f"say {i}", "output": word}) for i in range(count)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def run_out(sweep: SweepController) -> None:
    """Leaves a record of every trial."""
    while job := sweep.next_job():
        scores = {role: Score(value=0.6, stderr=0.1, n=10) for role in job.spec.eval}
        sweep.ledger.write(
            TrialRecord(key=job.spec.key, state="complete", spec=job.spec, scores=scores, seconds={"train": 1.0})
        )
        sweep.finish(job.spec.key)


@pytest.fixture
def own(parts, tmp_path) -> dict:
    """A sweep with a local source."""
    rows(tmp_path / "rows.jsonl")
    parts["data"] |= {"mix": {"mine": 1.0}, "sources": {"mine": {"dataset": str(tmp_path / "rows.jsonl"), **OWN}}}
    return parts


def key(parts: dict, storage: Path) -> str:
    """The key of a trial of a sweep that begins now."""
    config = pinned(SweepConfig.model_validate(parts), storage)
    return config.spec({"lora.rank": 4}).key


def baseline(parts: dict, storage: Path) -> str:
    return pinned(SweepConfig.model_validate(parts), storage).baseline_specs()[0].key


def test_content_of_the_package_has_no_pins(parts, tmp_path):
    config = SweepConfig.model_validate(parts)
    assert pinned(config, tmp_path) == config


def test_edited_rows_change_the_key(own, tmp_path):
    before, base = key(own, tmp_path), baseline(own, tmp_path)
    rows(tmp_path / "rows.jsonl", "no!")
    assert key(own, tmp_path) != before
    assert baseline(own, tmp_path) == base


def test_edit_with_equal_size_and_time_changes_the_key(own, tmp_path):
    path = tmp_path / "rows.jsonl"
    before, times = key(own, tmp_path), path.stat()
    rows(path, "yea")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert path.stat().st_size == times.st_size
    assert key(own, tmp_path) != before


def test_touched_file_keeps_the_key(own, tmp_path):
    before = key(own, tmp_path)
    os.utime(tmp_path / "rows.jsonl")
    assert key(own, tmp_path) == before


def test_pattern_that_matches_another_file_changes_the_key(own, tmp_path):
    rows(tmp_path / "parts" / "a.jsonl")
    own["data"]["sources"]["mine"]["dataset"] = str(tmp_path / "parts" / "*.jsonl")
    before = key(own, tmp_path)
    rows(tmp_path / "parts" / "b.jsonl")
    assert key(own, tmp_path) != before


def test_identity_of_a_folder_covers_its_files(own, tmp_path):
    rows(tmp_path / "set" / "train.jsonl")
    own["data"]["sources"]["mine"]["dataset"] = str(tmp_path / "set")
    before = key(own, tmp_path)
    (tmp_path / "set" / ".git").mkdir()
    (tmp_path / "set" / ".git" / "HEAD").write_text("main")
    assert key(own, tmp_path) == before
    rows(tmp_path / "set" / "train.jsonl", "no")
    assert key(own, tmp_path) != before


@pytest.mark.parametrize(
    ("file", "counts"),
    [
        ("model.safetensors", True),
        ("config.json", True),
        ("tokenizer.json", True),
        ("chat_template.jinja", True),
        ("README.md", False),
        ("trainer_state.json", False),
        ("optimizer.pt", False),
    ],
)
def test_identity_of_a_base_covers_the_files_that_are_read(parts, tmp_path, file, counts):
    base = tmp_path / "base"
    shutil.copytree(MICRO, base)
    parts["base"]["model"] = str(base)
    before = baseline(parts, tmp_path)
    with (base / file).open("ab") as opened:
        opened.write(b" ")
    assert (baseline(parts, tmp_path) != before) is counts


def test_identity_of_a_gguf_base_covers_that_file_only(tmp_path):
    shutil.copytree(MICRO, tmp_path / "base")
    (tmp_path / "base" / "a.gguf").write_bytes(b"one")
    base = Base(model=str(tmp_path / "base"), gguf="a.gguf")
    before = identity.of_base(base, Hub())
    (tmp_path / "base" / "b.gguf").write_bytes(b"another")
    (tmp_path / "base" / "model.safetensors").write_bytes(b"unused")
    assert identity.of_base(base, Hub()) == before
    (tmp_path / "base" / "a.gguf").write_bytes(b"two")
    assert identity.of_base(base, Hub()) != before


def test_edited_parquet_changes_the_key(own, tmp_path):
    found = []
    for word in ("yes", "no"):
        pd.DataFrame({"instruction": ["say"] * 40, "output": [word] * 40}).to_parquet(tmp_path / "rows.parquet")
        own["data"]["sources"]["mine"]["dataset"] = str(tmp_path / "rows.parquet")
        found.append(key(own, tmp_path))
    assert found[0] != found[1]


def test_moved_base_keeps_its_identity(tmp_path):
    shutil.copytree(MICRO, tmp_path / "a")
    one = identity.of_base(Base(model=str(tmp_path / "a")), Hub())
    (tmp_path / "a").rename(tmp_path / "b")
    assert identity.of_base(Base(model=str(tmp_path / "b")), Hub()) == one


def test_changed_mirror_changes_the_key(own, tmp_path):
    own["data"]["sources"]["mine"]["dataset"] = "org/rows"
    own["hub_mirror"] = str(tmp_path / "mirror")
    rows(tmp_path / "mirror" / "org" / "rows" / "train.jsonl")
    before = key(own, tmp_path)
    shutil.copytree(tmp_path / "mirror", tmp_path / "elsewhere")
    own["hub_mirror"] = str(tmp_path / "elsewhere")
    assert key(own, tmp_path) == before
    rows(tmp_path / "elsewhere" / "org" / "rows" / "train.jsonl", "no")
    assert key(own, tmp_path) != before


def test_branch_of_the_hub_is_pinned_to_its_commit(parts, tmp_path, monkeypatch):
    refs = tmp_path / "models--org--model" / "refs"
    refs.mkdir(parents=True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    parts["base"]["model"] = "org/model"
    found = []
    for commit in ("a" * 40, "b" * 40):
        (refs / "main").write_text(commit)
        spec = pinned(SweepConfig.model_validate(parts), tmp_path).baseline_specs()[0]
        assert spec.base.revision == commit
        found.append(spec.key)
    assert found[0] != found[1]
    parts["base"]["revision"] = "a" * 40
    assert baseline(parts, tmp_path) == found[0]


def test_resumed_sweep_reports_changed_content(own, tmp_path):
    config = SweepConfig.model_validate(own)
    run_out(SweepController.open(pinned(config, tmp_path), tmp_path))
    assert pinned(config, tmp_path).pins.data
    rows(tmp_path / "rows.jsonl", "no")
    with pytest.raises(InputError, match=r"rows\.jsonl changed since this sweep began.*`name`"):
        pinned(config, tmp_path)


def test_sweep_without_finished_trial_takes_the_edited_file(own, tmp_path):
    config = SweepConfig.model_validate(own)
    SweepController.open(pinned(config, tmp_path), tmp_path)
    rows(tmp_path / "rows.jsonl", "no")
    pinned(config, tmp_path)


def test_sweep_begun_without_pins_keeps_its_keys(own, tmp_path):
    config = SweepConfig.model_validate(own)
    run_out(SweepController.open(config, tmp_path))  # as earlier versions did
    path = tmp_path / "little" / "sweep.yaml"
    path.write_text(yaml.safe_dump({name: value for name, value in yaml.safe_load(path.read_text()).items() if name != "pins"}))
    for _ in range(2):  # sweep.yaml is written anew in between
        again = pinned(config, tmp_path)
        assert again.spec({"lora.rank": 4}).key == config.spec({"lora.rank": 4}).key
        SweepController.open(again, tmp_path)


def test_sweep_without_pins_is_checked_against_its_baseline(parts, tmp_path):
    shutil.copytree(MICRO, tmp_path / "base")
    parts["base"]["model"] = str(tmp_path / "base")
    config = SweepConfig.model_validate(parts)
    sweep = SweepController.open(config, tmp_path)
    run_out(sweep)
    record = sweep.ledger.read(config.baseline_specs()[0].key)
    assert record is not None
    record.base_checksum = identity.of_weights(tmp_path / "base")
    sweep.ledger.write(record)
    pinned(config, tmp_path)
    with (tmp_path / "base" / "model.safetensors").open("ab") as opened:
        opened.write(b" ")
    with pytest.raises(InputError, match=r"the weights of .*base changed since this sweep began"):
        pinned(config, tmp_path)


def test_trial_refuses_files_that_differ_from_its_pins(own, tmp_path):
    spec = pinning.pinned(SweepConfig.model_validate(own).spec({"lora.rank": 4}), Hub())
    identity.check(spec, Hub())
    rows(tmp_path / "rows.jsonl", "no")
    with pytest.raises(InputError, match=r"source 'mine'.*rows\.jsonl.*is pinned to"):
        identity.check(spec, Hub())


def test_unused_pins_are_not_in_the_key(parts):
    spec = SweepConfig.model_validate(parts).spec({"lora.rank": 4})
    unused = spec.data.model_copy(update={"content": {"other": "sha256:0"}, "date": dt.date(2025, 1, 2)})
    assert spec.model_copy(update={"data": unused}).key == spec.key


def test_chat_template_writes_the_pinned_date():
    import jinja2

    text = dated("{{ 'on ' + strftime_now('%d %b %Y, %-d.%m. %%') }}", dt.date(2025, 1, 2))
    assert jinja2.Template(text).render() == "on 02 Jan 2025, 2.01. %"


# ---------------------------------------------------------------------- own tasks


def with_folder(spec, folder: Path, fields=SUMS):
    return pinning.pinned(spec.model_copy(update={"eval": {"own": role(fields, folder)}}), Hub())


@pytest.mark.parametrize("name", ["sums.yaml", "_sums.yaml", "data/sums.jsonl", "metrics.py"])
def test_every_file_of_a_task_folder_is_in_the_key(spec, tmp_path, name):
    folder = shop(tmp_path)
    before = with_folder(spec, folder).baseline().key
    with (folder / name).open("a") as file:
        file.write("\n")
    assert with_folder(spec, folder).baseline().key != before


def test_data_outside_a_task_folder_are_in_the_key(spec, tmp_path):
    folder, far = shop(tmp_path), tmp_path / "far.jsonl"
    far.write_text("{}")
    (folder / "far.yaml").write_text(f"task: far\ndataset_path: json\ndataset_kwargs: {{data_files: {far}}}\n")
    before = with_folder(spec, folder).key
    far.write_text("{} ")
    assert with_folder(spec, folder).key != before


def test_moved_task_folder_and_trust_keep_the_key(spec, tmp_path):
    folder = shop(tmp_path)
    before = with_folder(spec, folder)
    folder.rename(tmp_path / "moved")
    assert with_folder(spec, tmp_path / "moved").key == before.key
    trusting = with_folder(spec, tmp_path / "moved", {**SUMS, "trust_code": True})
    assert trusting.key == before.key
    assert with_folder(spec, tmp_path / "moved", DISTANCE).key != before.key


def test_unpinned_task_folder_is_in_the_key_by_its_name(spec, tmp_path):
    one, other = (spec.model_copy(update={"eval": {"own": role(SUMS, tmp_path / name)}}) for name in "ab")
    assert one.key != other.key


def test_task_folder_that_changed_since_the_pin_is_one_line(spec, tmp_path):
    folder = shop(tmp_path)
    pinned_spec = with_folder(spec, folder)
    identity.check(pinned_spec, Hub())
    (folder / "metrics.py").write_text("")
    with pytest.raises(InputError, match=r"the folder .*shop of task shop_sums: its files are sha256:") as caught:
        identity.check(pinned_spec, Hub())
    assert len(str(caught.value).splitlines()) == 1
