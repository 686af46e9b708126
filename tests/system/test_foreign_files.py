"""Files that somebody else put into a storage run nothing and lead nowhere."""

import json
import pickle
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors.torch import load_file, save_file

from tests import ready
from trials.adapters import peft_adapter
from trials.errors import InputError
from trials.hub.hub import Hub
from trials.ledger.checkpoint import CheckpointStore, Saved
from trials.ledger.record import Ledger, TrialRecord
from trials.models import base
from trials.spec import Base, Lora


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


ADAPTERS = {"lora": Lora(rank=2), "oft": Lora(method="oft", block_size=2), "shira": Lora(method="shira", rank=2)}


@pytest.fixture(scope="module")
def loaded():
    return base.load(Base(model="micro", dtype="float32"), Hub())


def saved(loaded, method: str, folder: Path) -> tuple[dict, dict[str, torch.Tensor]]:
    """A true adapter's settings and weights."""
    with peft_adapter.adapted(loaded, ADAPTERS[method], 0) as model:
        peft_adapter.save(model, folder)
    return json.loads((folder / "adapter_config.json").read_text()), load_file(folder / "adapter_model.safetensors")


def refused(loaded, folder: Path, reason: str) -> None:
    with pytest.raises(InputError) as caught, peft_adapter.borrowed(loaded, folder):
        pass
    assert str(caught.value).startswith(str(folder)) and reason in str(caught.value) and "\n" not in str(caught.value)
    assert not any(isinstance(module, BaseTunerLayer) for module in loaded.model.modules())


@pytest.mark.parametrize("name", ["adapter_model.bin", "adapter_model.pt", "adapter_model.npy", "adapter_model.safetensors"])
def test_an_adapter_is_never_unpickled(loaded, payload, tmp_path, name):
    saved(loaded, "lora", tmp_path)
    (tmp_path / "adapter_model.safetensors").unlink()
    (tmp_path / name).write_bytes(payload)
    refused(loaded, tmp_path, "no adapter that can be read")


@pytest.mark.parametrize(
    ("method", "field", "value", "reason"),
    [
        ("lora", "target_modules", "(a+)+$", "target_modules: Input should be a valid list"),
        ("lora", "target_modules", ["(a+)+$"], "target_modules.0: String should match pattern"),
        ("lora", "layers_pattern", ["(.*a){30}"], "layers_pattern.0: String should match pattern"),
        ("lora", "rank_pattern", {"(a+)+$": 2}, "rank_pattern.(a+)+$.[key]: String should match pattern"),
        ("lora", "rank_pattern", {"q_proj": 10**9}, "its rank is 1000000000"),
        ("lora", "alpha_pattern", ["q_proj"], "alpha_pattern: Input should be a valid dictionary"),
        ("lora", "alpha_pattern", {"q_proj": "x"}, "alpha_pattern.q_proj: Input should be a valid number"),
        ("lora", "lora_alpha", "x", "lora_alpha: Input should be a valid number"),
        ("lora", "r", 10**9, "its rank is 1000000000"),
        ("lora", "r", "2", "r: Input should be a valid integer"),
        ("lora", "r", -2, "r: Input should be greater than 0"),
        ("lora", "peft_type", "VERA", "its kind is VERA; those that are read are LORA, OFT, SHIRA"),
        ("oft", "oft_block_size", -1, "oft_block_size: Input should be greater than or equal to 2"),
        ("oft", "oft_block_size", 16.0, "oft_block_size: Input should be a valid integer"),
        ("oft", "oft_block_size", 4, "fits its settings and the base"),
        ("oft", "oft_block_size", 10**9, "fits its settings and the base"),
        ("shira", "r", True, "r: Input should be a valid integer"),
        ("shira", "r", 10**9, "fits its settings and the base"),
        ("shira", "r", 3, "fits its settings and the base"),
    ],
)
def test_an_adapter_s_settings_hold_no_regular_expression_and_fit_its_weights(loaded, tmp_path, method, field, value, reason):
    settings, _ = saved(loaded, method, tmp_path)
    (tmp_path / "adapter_config.json").write_text(json.dumps(settings | {field: value}))
    refused(loaded, tmp_path, reason)


FIRST = "base_model.model.model.layers.0.self_attn.q_proj"


@pytest.mark.parametrize(
    ("method", "name", "weight", "reason"),
    [
        ("lora", f"{FIRST}.lora_A.weight", torch.tensor(1.0), "fits its settings and the base"),
        ("lora", f"{FIRST}.lora_A.weight", torch.zeros(10**7, 0), "fits its settings and the base"),
        ("lora", "x.lora_A.weight", torch.zeros(10**4, 1), "the base has no layer x"),
        ("oft", f"{FIRST}.oft_R.weight", torch.zeros(64), "fits its settings and the base"),
        ("shira", f"{FIRST}.shira_indices", torch.zeros(2, 512, dtype=torch.uint8), "weights outside of"),
        ("shira", f"{FIRST}.shira_indices", torch.full((2, 512), 10**6, dtype=torch.int32), "weights outside of"),
        ("shira", f"{FIRST}.shira_indices", torch.full((2, 512), -1, dtype=torch.int32), "weights outside of"),
        ("shira", f"{FIRST}.shira_indices", torch.zeros(2, 7, dtype=torch.int32), "fits its settings and the base"),
    ],
)
def test_an_adapter_s_weights_belong_to_layers_of_the_base(loaded, tmp_path, method, name, weight, reason):
    _, weights = saved(loaded, method, tmp_path)
    save_file(weights | {name: weight}, tmp_path / "adapter_model.safetensors")
    refused(loaded, tmp_path, reason)


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
