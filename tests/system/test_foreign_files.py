"""Files that somebody else put into a storage run nothing and lead nowhere."""

import json
import pickle
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import save_file

from tests import ready
from trials.adapters import peft_adapter
from trials.errors import InputError
from trials.ledger.checkpoint import CheckpointStore, Saved
from trials.ledger.record import Ledger, TrialRecord


def as_saved(saved: Saved) -> Saved:
    return saved


class Evil:
    """A pickle that makes a file when it is loaded."""

    def __init__(self, mark: Path):
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


@pytest.fixture
def payload(tmp_path):
    mark = tmp_path / "ran"
    yield pickle.dumps(Evil(mark))
    assert not mark.exists()
    pickle.loads(pickle.dumps(Evil(mark)))
    assert mark.exists()  # the attack itself works


@pytest.mark.parametrize("name", ["adapter_model.bin", "adapter_model.pt", "adapter_model.npy", "adapter_model.safetensors"])
def test_an_adapter_is_never_unpickled(payload, tmp_path, name):
    settings = {
        "r": 2,
        "lora_alpha": 4,
        "target_modules": ["q_proj"],
        "lora_dropout": 0.0,
        "use_rslora": False,
        "use_dora": False,
    }
    (tmp_path / "adapter_config.json").write_text(json.dumps(settings))
    (tmp_path / name).write_bytes(payload)
    with pytest.raises(InputError, match="no adapter that can be read"), peft_adapter.borrowed(None, tmp_path):
        pass


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("target_modules", "(a+)+$", "target_modules is no list"),
        ("target_modules", ["(a+)+$"], "target_modules is no list"),
        ("layers_pattern", ["(.*a){30}"], "layers_pattern is no list"),
        ("r", 10**9, "its rank is 1000000000"),
        ("r", "2", "its rank is 2"),
        ("rank_pattern", {"(a+)+$": 2}, "rank_pattern is no list"),
        ("alpha_pattern", ["q_proj"], "alpha_pattern is no list"),
        ("rank_pattern", {"q_proj": 10**9}, "its rank is 1000000000"),
        ("peft_type", "VERA", "its kind is VERA; those that are read are LORA, OFT, SHIRA"),
    ],
)
def test_an_adapter_s_settings_hold_no_regular_expression_and_no_rank_but_its_own(tmp_path, field, value, reason):
    settings = {
        "peft_type": "LORA",
        "r": 2,
        "lora_alpha": 4,
        "target_modules": ["q_proj"],
        "layers_to_transform": None,
        "layers_pattern": None,
    }
    settings |= {
        "rank_pattern": {},
        "alpha_pattern": {},
        "fan_in_fan_out": False,
        "use_rslora": False,
        "use_dora": False,
        field: value,
    }
    (tmp_path / "adapter_config.json").write_text(json.dumps(settings))
    save_file({"q_proj.lora_A.weight": torch.zeros(2, 4)}, tmp_path / "adapter_model.safetensors")
    with pytest.raises(InputError, match=re.escape(reason)), peft_adapter.borrowed(None, tmp_path):
        pass


def test_a_partial_state_is_never_unpickled(payload, tmp_path):
    checkpoints = CheckpointStore(tmp_path / "partial").bound(key="a")
    checkpoints.save({"step": 1}, {})
    (file,) = checkpoints.folder.glob("*.safetensors")
    file.write_bytes(payload)
    assert checkpoints.load(as_saved) is None
    assert checkpoints.set_aside == ["training.json: its checksum is wrong"]


def test_documents_are_never_unpickled(payload, tmp_path, spec):
    extension = {b"ARROW:extension:name": b"arrow.py_extension_type", b"ARROW:extension:metadata": payload}
    schema = pa.schema([pa.field("role", pa.string(), metadata=extension)], metadata={b"pandas": b"{}"})
    ledger = Ledger(tmp_path)
    ledger.write(TrialRecord(key=spec.key, state="complete", spec=spec))
    pq.write_table(pa.table({"role": ["math"]}, schema=schema), ledger.folder(spec.key) / "documents.parquet")
    assert list(ledger.documents(spec.key)["role"]) == ["math"]


@pytest.mark.parametrize("name", ["../../x", "/x", "a/../../x", "x\0", ""])
@pytest.mark.parametrize("field", ["name", "key", "baseline", "baselines"])
def test_a_manifest_that_leaves_its_folder_is_refused(whole, name, field, command):
    path = whole / "manifest.json"
    told = json.loads(path.read_text())
    if field in ("key", "baseline"):
        told["trials"][0][field] = name
    else:
        told[field] = name if field == "name" else [name]
    path.write_text(json.dumps(told))
    for done in (command("status", whole), command("publish", whole, "#0")):
        assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
        assert "not a whole manifest" in done.stderr


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return ready.build(ready.config(), tmp_path_factory.mktemp("runs"))


@pytest.fixture
def whole(made):
    """A finished sweep, whose manifest is put back."""
    before = (made / "manifest.json").read_text()
    yield made
    (made / "manifest.json").write_text(before)


@pytest.mark.parametrize("name", ["lease.007.json", "lease.٣.json", "lease.².json", "lease.99999999999999999999999.json"])
def test_a_lease_under_no_holders_name_is_nobodys(tmp_path, spec, name):
    ledger = Ledger(tmp_path)
    ledger.folder(spec.key).mkdir(parents=True)
    (ledger.folder(spec.key) / name).write_text("{}")
    lease = ledger.lease(spec.key)
    assert lease is not None
    lease.release()


def test_a_damaged_baseline_does_not_keep_a_sweep_from_going_on(tmp_path):
    from orchestrator.sweep.earlier_run import pinned

    folder = ready.build(ready.config(), tmp_path)
    (key,) = json.loads((folder / "manifest.json").read_text())["baselines"]
    (tmp_path / "ledger" / key / "record.json").write_text("{")
    assert pinned(ready.config(), tmp_path).name == "little"
