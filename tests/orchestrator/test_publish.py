"""An adapter published: what is written is scored by the real stack on the embedded base, the rest by records made up."""

import json
import shutil

import pytest
import torch
import yaml
from huggingface_hub import constants
from huggingface_hub.errors import HfHubHTTPError
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from analysis.results.load import load
from orchestrator import publish as publishing
from orchestrator.errors import SweepFailed
from tests.factories.bases import MICRO, beside_tokenizer
from tests.factories.configs import CONFIG, deep
from tests.factories.sweeps import Builder
from trials import publish_merge
from trials.adapters import lora as adapter
from trials.adapters.low_rank import factors
from trials.errors import InputError
from trials.evaluation import evaluate
from trials.hub.hub import Hub
from trials.ledger.record import Failure, Ledger, Score, TrialRecord
from trials.models import base
from trials.spec import TrialSpec


def spec_of(**sections) -> TrialSpec:
    parts = {name: deep(CONFIG)[name] for name in TrialSpec.model_fields if name in CONFIG}
    return TrialSpec.model_validate({**parts, **sections})


def as_sweep(folder, *specs):
    """A sweep's folder beside a ledger that holds these trials and their baseline."""
    trials = [
        {"number": number, "key": spec.key, "baseline": spec.baseline().key, "params": {"lora.rank": spec.lora.rank}}
        for number, spec in enumerate(specs)
    ]
    search = deep(CONFIG)["search"]
    told = {name: search[name] for name in ("objectives", "constraints")}
    folder.mkdir(parents=True, exist_ok=True)
    whole = {"schema": 1, "name": folder.name, "space": ["lora.rank"], "trials": trials, **told}
    (folder / "manifest.json").write_text(json.dumps(whole))
    return folder


@pytest.fixture(scope="module")
def storage(worker):
    """A storage root with a trained trial, a point derived from it and their baseline, by the real stack."""
    spec, derived = spec_of(), spec_of(derive={"strength": 0.5, "rank": 2})
    for one in (spec.baseline(), spec, derived):
        assert worker.run(one).failure is None
    as_sweep(worker.session.ledger.root.parent / "little", spec, derived)
    return worker.session.ledger.root.parent


@pytest.fixture(scope="module")
def published(storage, tmp_path_factory):
    """(folder, what publish told)"""
    place = tmp_path_factory.mktemp("published") / "model"
    return place, publishing.publish(load(storage / "little"), "#0", place, None, False, False, lambda _: None)


def test_the_merged_model_loaded_by_plain_transformers_scores_what_the_record_says(published, worker):
    place, told = published
    model = AutoModelForCausalLM.from_pretrained(place, dtype="auto").eval()
    assert {type(module) for module in model.modules() if "Linear" in type(module).__name__} == {torch.nn.Linear}
    assert not hasattr(model.config, "quantization_config")
    tokenizer = AutoTokenizer.from_pretrained(place)
    record = json.loads((place / "record.json").read_text())
    merged = TrialRecord.model_validate(record["merged"])
    for role, evaluation in spec_of().eval.items():
        documents = evaluate.evaluate(model, tokenizer, role, evaluation, worker.session.tasks, evaluation.batch_size)
        assert documents["score"].mean() == merged.scores[role].value == told["roles"][role]["merged"]["value"]
        kept = worker.session.ledger.documents(told["merged"])
        assert list(documents["response"]) == list(kept.loc[kept["role"] == role, "response"])


def test_the_merged_model_is_the_adapter_on_the_unquantised_base(published):
    place, _ = published
    original = AutoModelForCausalLM.from_pretrained(Hub().locate("micro"), dtype="auto")
    adapted = PeftModel.from_pretrained(original, place / "adapter").eval()
    merged = AutoModelForCausalLM.from_pretrained(place, dtype="auto").eval()
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        assert torch.allclose(merged(input_ids=ids).logits, adapted(input_ids=ids).logits, atol=1e-4)
        with adapted.disable_adapter():
            assert not torch.allclose(merged(input_ids=ids).logits, adapted(input_ids=ids).logits, atol=1e-2)


def test_numbers_of_adapter_merged_model_and_baseline_stand_side_by_side(published, worker):
    place, told = published
    record = json.loads((place / "record.json").read_text())
    assert record["adapter"]["key"] == told["key"] == spec_of().key
    assert record["merged"]["spec"]["base"]["quantization"] == "none"
    text = (place / "README.md").read_text()
    for role in ("commonsense", "math"):
        one = told["roles"][role]
        for name, key in (("baseline", spec_of().baseline().key), ("adapter", spec_of().key), ("merged", told["merged"])):
            assert one[name]["value"] == worker.session.ledger.read(key).scores[role].value
            assert one[name]["low"] <= one[name]["value"] <= one[name]["high"]
            assert f"{100 * one[name]['value']:.1f} [" in text
        assert one["difference"]["value"] == pytest.approx(one["merged"]["value"] - one["adapter"]["value"])
    assert record["roles"] == told["roles"]
    assert told["metrics"]["math.drop"]["merged"]["value"] == pytest.approx(
        told["roles"]["math"]["baseline"]["value"] - told["roles"]["math"]["merged"]["value"]
    )


def test_the_card_tells_base_mix_settings_and_how_to_repeat_it(published):
    place, told = published
    _, head, body = (place / "README.md").read_text().split("---\n", 2)
    assert yaml.safe_load(head)["library_name"] == "transformers"
    for said in ("micro (comes with slimsweep)", "| 16 |", "`lora.rank` | 4", "math forgetting", told["key"], "bitsandbytes"):
        assert said in body
    assert "python -m trials spec.yaml" in body
    assert TrialSpec.model_validate(yaml.safe_load((place / "spec.yaml").read_text())).key == told["key"]


def test_nothing_published_names_this_machine_or_a_folder_of_it(published, storage):
    place, _ = published
    host = Ledger(storage).read(spec_of().key).host
    texts = {file: file.read_text() for file in place.rglob("*") if file.is_file() and file.suffix != ".safetensors"}
    assert {file.name for file in texts} >= {"README.md", "spec.yaml", "record.json", "config.json", "adapter_config.json"}
    for file, text in texts.items():
        assert not any(path in text for path in (str(storage), str(place.parent), Hub().locate("micro"), f'"{host}"')), file
    assert all(file.stat().st_mode & 0o444 == 0o444 for file in place.rglob("*"))


def test_an_id_is_what_others_find_on_the_hub(tmp_path):
    (tmp_path / "org" / "model").mkdir(parents=True)
    hub = Hub(tmp_path)
    assert all(hub.is_id(name) for name in ("org/model", "nobody/nothing"))
    assert not any(hub.is_id(name) for name in ("micro", "micro/alpaca", str(tmp_path / "org" / "model"), "~/model", "./model"))


def test_a_folder_shows_its_name_alone():
    shared = publishing._shared(
        spec_of(
            base={"model": "/home/somebody/models/secret-base", "dtype": "float32"},
            data={
                "samples": 8,
                "mix": {"own": 1},
                "sources": {"own": {"dataset": "~/rows.jsonl", "instruction": "{{a}}", "response": "{{b}}"}},
            },
        )
    )
    assert (shared.base.model, shared.data.sources["own"].dataset) == ("secret-base", "rows.jsonl")


def test_a_merged_model_is_evaluated_once_however_often_it_is_published(published, storage, tmp_path, monkeypatch):
    monkeypatch.setattr(evaluate, "evaluate", lambda *_: pytest.fail("evaluated again"))
    again = publishing.publish(load(storage / "little"), spec_of().key[:6], tmp_path / "again", None, False, False, str)
    assert again["merged"] == published[1]["merged"]


def merged_by_hand(lora, dtype, folder, **of_base):
    """(the base, the folder of the merged model): an adapter whose weights are drawn, not trained."""
    spec = spec_of(lora=lora, base={"model": "micro", "dtype": dtype, "quantization": "none", **of_base})
    ledger, hub = Ledger(folder / "runs"), Hub()
    loaded = base.load(spec.base, hub)
    with adapter.adapted(loaded, spec.lora, seed=0) as model:
        torch.manual_seed(1)
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.data += 0.05 * torch.randn_like(weight)
        adapter.save(model, ledger.folder(spec.key) / "adapter")
    (folder / "out").mkdir()
    record = TrialRecord(key=spec.key, state="complete", spec=spec, base_checksum=loaded.checksum)
    publish_merge.merge(record, ledger, hub, folder / "out")
    return base.load(spec.base, hub), folder / "out"


@pytest.mark.parametrize(
    "lora",
    [
        {"rank": 4, "use_rslora": True, "target_modules": "all-linear"},
        {"rank": 4, "use_dora": True},
        {"rank": 4, "init": "pissa"},
        {"rank": 4, "target_modules": ["lm_head", "q_proj"]},
    ],
    ids=["rslora", "dora", "pissa", "tied head"],
)
def test_every_kind_of_adapter_merges_into_what_it_is_on_the_base(lora, tmp_path):
    loaded, place = merged_by_hand(lora, "float32", tmp_path)
    merged = AutoModelForCausalLM.from_pretrained(place, dtype="auto").eval()
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        before = loaded.model(input_ids=ids).logits
        with adapter.borrowed(loaded, place / "adapter") as model:
            wanted = model(input_ids=ids).logits
        found = merged(input_ids=ids).logits
    assert (found - wanted).abs().max() < 1e-4 * (wanted - before).abs().max()


def test_an_adapter_on_a_gguf_file_merges_into_the_files_weights(tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HOME", str(tmp_path / "cache"))
    file = beside_tokenizer(tmp_path / "file", MICRO)
    loaded, place = merged_by_hand({"rank": 4}, "float32", tmp_path, model=str(file), gguf="model.gguf")
    merged, ids = AutoModelForCausalLM.from_pretrained(place, dtype="auto").eval(), torch.tensor([[5, 6, 7, 8]])
    assert not hasattr(merged.config, "quantization_config")
    with torch.no_grad(), adapter.borrowed(loaded, place / "adapter") as model:
        assert torch.allclose(merged(input_ids=ids).logits, model(input_ids=ids).logits, atol=1e-4)


def test_a_derived_point_is_published_as_it_stands(storage, tmp_path):
    told = publishing.publish(load(storage / "little"), "#1", tmp_path / "model", None, False, False, str)
    assert json.loads((tmp_path / "model" / "adapter" / "adapter_config.json").read_text())["r"] == 2
    assert "`derive.strength` | 0.5" in (tmp_path / "model" / "README.md").read_text()
    assert told["merged"] != told["key"]


def test_merged_weights_are_of_the_specs_type_and_rounded_once(tmp_path):
    loaded, place = merged_by_hand({"rank": 4, "target_modules": ["q_proj"]}, "bfloat16", tmp_path)
    merged = AutoModelForCausalLM.from_pretrained(place, dtype="auto")
    with adapter.borrowed(loaded, place / "adapter") as model:
        for name, (down, up) in factors(model).items():
            layer = name.removeprefix("base_model.model.")
            weight = loaded.model.get_submodule(layer).get_base_layer().weight
            assert weight.dtype == torch.bfloat16
            assert torch.equal(merged.get_submodule(layer).weight, (weight.float() + up @ down).bfloat16())


def test_a_base_whose_weights_are_others_by_now_is_refused(storage, tmp_path):
    record = Ledger(storage).read(spec_of().key).model_copy(update={"base_checksum": "0" * 64})
    with pytest.raises(InputError, match="its weights are others than those"):
        publish_merge.merge(record, Ledger(storage), Hub(), tmp_path)


# ---------------------------------------------------------------------- what is refused


@pytest.fixture
def planted(storage, tmp_path):
    """The same storage, whose adapter's record says of mathematics what the merged model does not do."""
    root = shutil.copytree(storage, tmp_path / "runs")
    ledger, key = Ledger(root), spec_of().key
    record, documents = ledger.read(key), ledger.documents(key)
    role = documents["role"] == "math"
    other = 1 - round(float(documents.loc[role, "score"].mean()))
    documents.loc[role, "score"] = float(other)
    score = Score(value=other, stderr=0.0, n=int(role.sum()))
    halves = {half: named | {"score": score} for half, named in record.halves["math"].items()}
    record = record.model_copy(update={"scores": record.scores | {"math": score}, "halves": record.halves | {"math": halves}})
    ledger.write(record, documents)
    return root / "little"


def test_a_merged_model_outside_of_the_adapters_interval_is_not_published(planted, tmp_path, command):
    ran = command("publish", planted, "#0", "--to", tmp_path / "places" / "model", "--json")
    assert ran.returncode == 1
    assert ran.stdout == ""
    line = ran.stderr.strip().splitlines()[-1]
    assert line.startswith("not published: math ")
    assert "is outside of the adapter's" in line
    assert list((tmp_path / "places").iterdir()) == []


def test_force_publishes_it_and_the_card_says_so(planted, tmp_path, command):
    ran = command("publish", planted, "#0", "--to", tmp_path / "model", "--force", "--json")
    assert ran.returncode == 0, ran.stderr
    told = json.loads(ran.stdout)
    assert (told["forced"], told["roles"]["math"]["inside"], told["roles"]["commonsense"]["inside"]) == (True, False, True)
    assert "Outside of the adapter's interval" in (tmp_path / "model" / "README.md").read_text()


def test_a_place_that_is_taken_is_left_alone(storage, tmp_path, command):
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "letter.txt").write_text("dear")
    ran = command("publish", storage / "little", "#0", "--to", tmp_path / "taken")
    assert (ran.returncode, ran.stderr.count("\n")) == (2, 1)
    assert "there is something already" in ran.stderr
    assert [file.name for file in (tmp_path / "taken").iterdir()] == ["letter.txt"]


def test_a_publish_that_is_stopped_leaves_nothing_and_what_a_killed_one_left_goes(storage, tmp_path, monkeypatch):
    left = tmp_path / "places" / ".model.publishing"
    left.mkdir(parents=True)
    (left / "half.safetensors").write_text("of a killed one")

    def stopped(*_):
        assert not (left / "half.safetensors").exists()
        raise KeyboardInterrupt

    monkeypatch.setattr(publish_merge, "evaluate", stopped)
    with pytest.raises(KeyboardInterrupt):
        publishing.publish(load(storage / "little"), "#0", tmp_path / "places" / "model", None, False, False, str)
    assert list((tmp_path / "places").iterdir()) == []


def test_two_publishes_to_one_place_do_not_mix(tmp_path):
    with (
        publishing._staged(tmp_path / "model"),
        pytest.raises(SweepFailed, match="another process is publishing"),
        publishing._staged(tmp_path / "model"),
    ):
        pass


def test_a_record_is_named_by_number_key_or_a_unique_beginning(tmp_path):
    builder = Builder(tmp_path).baseline().add((21, 39)).add((22, 38))
    builder.add(failure=Failure(kind="OutOfMemory", message="too little", traceback=""))
    sweep = builder.add().load()
    keys = list(sweep.trials["key"])
    for asked in ("1", "#1", keys[1], keys[1][:9]):
        record, baseline = publishing.chosen(sweep, asked)
        assert (record.key, baseline.key) == (keys[1], builder.base.key)
    for asked, said in {
        "#9": "has no trial #9",
        "": "several keys begin so",
        "zz": "no one record 'zz'",
        "#2": "is failed: too little",
        "#3": "is not finished",
        builder.base.key: "is a baseline",
    }.items():
        with pytest.raises(InputError, match=said):
            publishing.chosen(sweep, asked)


# ---------------------------------------------------------------------- the hub


class Api:
    """What is used of huggingface_hub.HfApi; `refuses` names the call that the hub turns down."""

    refuses = ""

    def __init__(self):
        self.calls = []
        Api.made = self

    def _asked(self, name, *arguments, **named):
        self.calls.append((name, arguments, named))
        if name == self.refuses:
            response = type("Response", (), {"headers": {}, "request": None, "status_code": 403})()
            raise HfHubHTTPError("403 Forbidden: hf_abcdefghijkl may not write\nlong story", response=response)

    def whoami(self):
        self._asked("whoami")

    def create_repo(self, repository, **named):
        self._asked("create_repo", repository, **named)
        return f"https://huggingface.co/{repository}"

    def upload_folder(self, **named):
        self._asked("upload_folder", **named)


@pytest.fixture
def hub_of(monkeypatch):
    def make(refuses=""):
        monkeypatch.setattr("huggingface_hub.HfApi", Api)
        monkeypatch.setattr(Api, "refuses", refuses)
        monkeypatch.setenv("HF_TOKEN", "hf_abcdefghijkl")

    return make


def test_the_folder_is_uploaded_to_a_private_repository(published, storage, tmp_path, hub_of):
    hub_of()
    told = publishing.publish(load(storage / "little"), "#0", tmp_path / "model", "org/name", False, False, str)
    assert told["url"] == "https://huggingface.co/org/name"
    assert [name for name, *_ in Api.made.calls] == ["whoami", "create_repo", "upload_folder"]
    assert Api.made.calls[1][2]["private"] is True
    assert Api.made.calls[2][2] | {"commit_message": ""} == {
        "repo_id": "org/name",
        "folder_path": str(tmp_path / "model"),
        "commit_message": "",
    }


def test_without_a_token_or_with_a_refused_one_nothing_is_done(storage, tmp_path, hub_of, command, monkeypatch):
    hub_of("whoami")
    ran = command("publish", storage / "little", "#0", "--to", tmp_path / "model", "--hub", "org/name")
    assert (ran.returncode, ran.stderr.count("\n")) == (2, 1)
    assert "the hub does not take the token: 403 Forbidden: hf_*** may not write" in ran.stderr
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    ran = command("publish", storage / "little", "#0", "--to", tmp_path / "model", "--hub", "org/name")
    assert (ran.returncode, ran.stderr.count("\n")) == (2, 1)
    assert "there is no token" in ran.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_refused_upload_leaves_the_folder_and_says_how_to_go_on(published, storage, tmp_path, hub_of):
    hub_of("upload_folder")
    with pytest.raises(SweepFailed, match=r"refused the upload: .*hf upload org/name") as caught:
        publishing.publish(load(storage / "little"), "#0", tmp_path / "model", "org/name", False, False, str)
    assert "\n" not in str(caught.value)
    assert (tmp_path / "model" / "README.md").exists()
