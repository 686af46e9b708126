"""Publication on the embedded base by the real stack; refusals and the hub on planted records."""

import json
import shutil

import pytest
import torch
import yaml
from huggingface_hub.errors import HfHubHTTPError
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from analysis.results.load import load
from orchestrator import publish as publishing
from orchestrator.errors import SweepFailed
from orchestrator.publish import Destination, publish
from tests.factories.configs import CONFIG, deep, spec_of
from tests.factories.sweeps import Builder
from trials import publish_merge
from trials.errors import InputError
from trials.evaluation import evaluate
from trials.hub.hub import Hub
from trials.ledger.record import Failure, Ledger, Score, TrialRecord
from trials.spec import TrialSpec


def as_sweep(folder, *specs):
    """A sweep's folder beside a ledger that holds these trials and their baseline."""
    trials = [
        {"number": number, "key": spec.key, "baseline": spec.baseline().key, "params": {"lora.rank": spec.lora.rank}}
        for number, spec in enumerate(specs)
    ]
    search = deep(CONFIG)["search"]
    aims = {name: search[name] for name in ("objectives", "constraints")}
    folder.mkdir(parents=True, exist_ok=True)
    whole = {"schema": 1, "name": folder.name, "space": ["lora.rank"], "trials": trials, **aims}
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
    """(folder, the result of publish)"""
    place = tmp_path_factory.mktemp("published") / "model"
    return place, publish(load(storage / "little"), "#0", Destination(place), str)


def test_transformers_scores_the_merged_model_as_recorded(published, worker):
    place, result = published
    model = AutoModelForCausalLM.from_pretrained(place, dtype="auto").eval()
    assert {type(module) for module in model.modules() if "Linear" in type(module).__name__} == {torch.nn.Linear}
    assert not hasattr(model.config, "quantization_config")
    tokenizer = AutoTokenizer.from_pretrained(place)
    record = json.loads((place / "record.json").read_text())
    merged = TrialRecord.model_validate(record["merged"])
    for role, evaluation in spec_of().eval.items():
        documents = evaluate.evaluate(
            evaluate.make_engine(evaluation.engine, model, tokenizer, evaluation.batch_size),
            role,
            evaluation,
            worker.session.tasks,
        )
        assert documents["score"].mean() == merged.scores[role].value == result["roles"][role]["merged"]["value"]
        kept = worker.session.ledger.documents(result["merged"])
        assert list(documents["response"]) == list(kept.loc[kept["role"] == role, "response"])


def test_merged_logits_equal_the_adapter_on_the_unquantised_base(published):
    place, _ = published
    original = AutoModelForCausalLM.from_pretrained(Hub().locate("micro"), dtype="auto")
    adapted = PeftModel.from_pretrained(original, place / "adapter").eval()
    merged = AutoModelForCausalLM.from_pretrained(place, dtype="auto").eval()
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        assert torch.allclose(merged(input_ids=ids).logits, adapted(input_ids=ids).logits, atol=1e-4)
        with adapted.disable_adapter():
            assert not torch.allclose(merged(input_ids=ids).logits, adapted(input_ids=ids).logits, atol=1e-2)


def test_numbers_of_adapter_merged_model_and_baseline_match_their_records(published, worker):
    place, result = published
    record = json.loads((place / "record.json").read_text())
    assert record["adapter"]["key"] == result["key"] == spec_of().key
    assert record["merged"]["spec"]["base"]["quantization"] == "none"
    text = (place / "README.md").read_text()
    for role in ("commonsense", "math"):
        one = result["roles"][role]
        for name, key in (("baseline", spec_of().baseline().key), ("adapter", spec_of().key), ("merged", result["merged"])):
            assert one[name]["value"] == worker.session.ledger.read(key).scores[role].value
            assert one[name]["low"] <= one[name]["value"] <= one[name]["high"]
            assert f"{100 * one[name]['value']:.1f} [" in text
        assert one["difference"]["value"] == pytest.approx(one["merged"]["value"] - one["adapter"]["value"])
    assert record["roles"] == result["roles"]
    assert result["metrics"]["math.drop"]["merged"]["value"] == pytest.approx(
        result["roles"]["math"]["baseline"]["value"] - result["roles"]["math"]["merged"]["value"]
    )


def test_card_names_base_mix_settings_and_commands(published):
    place, result = published
    _, head, body = (place / "README.md").read_text().split("---\n", 2)
    assert yaml.safe_load(head)["library_name"] == "transformers"
    for said in ("micro (comes with slimsweep)", "| 16 |", "`lora.rank` | 4", "math forgetting", result["key"], "bitsandbytes"):
        assert said in body
    assert "A LoRA adapter on" in body and "block_size" not in body
    assert "python -m trials spec.yaml" in body
    assert TrialSpec.model_validate(yaml.safe_load((place / "spec.yaml").read_text())).key == result["key"]


def test_published_files_name_no_host_and_no_local_path(published, storage):
    place, _ = published
    host = Ledger(storage).read(spec_of().key).host
    texts = {file: file.read_text() for file in place.rglob("*") if file.is_file() and file.suffix != ".safetensors"}
    assert {file.name for file in texts} >= {"README.md", "spec.yaml", "record.json", "config.json", "adapter_config.json"}
    for file, text in texts.items():
        assert not any(path in text for path in (str(storage), str(place.parent), Hub().locate("micro"), f'"{host}"')), file
    assert all(file.stat().st_mode & 0o444 == 0o444 for file in place.rglob("*"))


def test_hub_ids_are_told_apart_from_local_names(tmp_path):
    (tmp_path / "org" / "model").mkdir(parents=True)
    hub = Hub(tmp_path)
    assert all(hub.is_id(name) for name in ("org/model", "nobody/nothing"))
    assert not any(hub.is_id(name) for name in ("micro", "micro/alpaca", str(tmp_path / "org" / "model"), "~/model", "./model"))


def test_public_spec_has_no_paths():
    shared = publishing.without_paths(
        spec_of(
            base={"model": "/home/somebody/models/secret-base", "dtype": "float32"},
            data={
                "samples": 8,
                "mix": {"own": 1},
                "sources": {"own": {"dataset": "~/rows.jsonl", "instruction": "{{a}}", "response": "{{b}}"}},
            },
            eval={"own": {"task": "sums", "metric": "acc", "include": "/home/somebody/tasks"}},
        )
    )
    assert shared.eval["own"].include == "tasks"
    assert (shared.base.model, shared.data.sources["own"].dataset) == ("secret-base", "rows.jsonl")


def test_merged_model_is_evaluated_once(published, storage, tmp_path, monkeypatch):
    monkeypatch.setattr(evaluate, "evaluate", lambda *_: pytest.fail("evaluated again"))
    again = publish(load(storage / "little"), spec_of().key[:6], Destination(tmp_path / "again"), str)
    assert again["merged"] == published[1]["merged"]


def test_derived_point_is_published_with_its_own_rank(storage, tmp_path):
    result = publish(load(storage / "little"), "#1", Destination(tmp_path / "model"), str)
    assert json.loads((tmp_path / "model" / "adapter" / "adapter_config.json").read_text())["r"] == 2
    assert "`derive.strength` | 0.5" in (tmp_path / "model" / "README.md").read_text()
    assert result["merged"] != result["key"]


def test_changed_base_weights_are_refused(storage, tmp_path):
    record = Ledger(storage).read(spec_of().key).model_copy(update={"base_checksum": "0" * 64})
    with pytest.raises(InputError, match="its weights are others than those"):
        publish_merge.merge(record, Ledger(storage), Hub(), tmp_path)


# ---------------------------------------------------------------------- what is refused


@pytest.fixture
def planted(storage, tmp_path):
    """The storage with a mathematics score of the adapter that the merged model does not reach."""
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


def test_merged_model_outside_the_adapters_interval_is_not_published(planted, tmp_path, command):
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
    result = json.loads(ran.stdout)
    assert (result["forced"], result["roles"]["math"]["inside"], result["roles"]["commonsense"]["inside"]) == (
        True,
        False,
        True,
    )
    assert "Outside of the adapter's interval" in (tmp_path / "model" / "README.md").read_text()


def test_folder_with_content_is_left_alone(storage, tmp_path, command):
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "letter.txt").write_text("dear")
    ran = command("publish", storage / "little", "#0", "--to", tmp_path / "taken")
    assert (ran.returncode, ran.stderr.count("\n")) == (2, 1)
    assert "there is something already" in ran.stderr
    assert [file.name for file in (tmp_path / "taken").iterdir()] == ["letter.txt"]


def test_interrupted_publication_leaves_nothing_and_removes_old_leftovers(storage, tmp_path, monkeypatch):
    left = tmp_path / "places" / ".model.publishing"
    left.mkdir(parents=True)
    (left / "half.safetensors").write_text("of a killed one")

    def stopped(*_):
        assert not (left / "half.safetensors").exists()
        raise KeyboardInterrupt

    monkeypatch.setattr(publish_merge, "evaluate", stopped)
    with pytest.raises(KeyboardInterrupt):
        publish(load(storage / "little"), "#0", Destination(tmp_path / "places" / "model"), str)
    assert list((tmp_path / "places").iterdir()) == []


def test_second_publication_to_one_folder_is_refused(tmp_path):
    with (
        publishing._staged(tmp_path / "model"),
        pytest.raises(SweepFailed, match="another process is publishing"),
        publishing._staged(tmp_path / "model"),
    ):
        pass


def test_record_is_named_by_number_key_or_unique_prefix(tmp_path):
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
    """The calls of huggingface_hub.HfApi that publish makes; `refuses` names the one that the hub refuses."""

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


def test_folder_is_uploaded_to_a_private_repository(published, storage, tmp_path, hub_of):
    hub_of()
    result = publish(load(storage / "little"), "#0", Destination(tmp_path / "model", "org/name"), str)
    assert result["url"] == "https://huggingface.co/org/name"
    assert [name for name, *_ in Api.made.calls] == ["whoami", "create_repo", "upload_folder"]
    assert Api.made.calls[1][2]["private"] is True
    assert Api.made.calls[2][2] | {"commit_message": ""} == {
        "repo_id": "org/name",
        "folder_path": str(tmp_path / "model"),
        "commit_message": "",
    }


def test_missing_or_refused_token_ends_before_any_work(storage, tmp_path, hub_of, command, monkeypatch):
    hub_of("whoami")
    ran = command("publish", storage / "little", "#0", "--to", tmp_path / "model", "--hub", "org/name")
    assert (ran.returncode, ran.stderr.count("\n")) == (2, 1)
    assert "the hub does not take the token: 403 Forbidden: hf_*** may not write" in ran.stderr
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    ran = command("publish", storage / "little", "#0", "--to", tmp_path / "model", "--hub", "org/name")
    assert (ran.returncode, ran.stderr.count("\n")) == (2, 1)
    assert "there is no token" in ran.stderr
    assert list(tmp_path.iterdir()) == []


def test_refused_upload_keeps_the_folder_and_prints_the_upload_command(published, storage, tmp_path, hub_of):
    hub_of("upload_folder")
    with pytest.raises(SweepFailed, match=r"refused the upload: .*hf upload org/name") as caught:
        publish(load(storage / "little"), "#0", Destination(tmp_path / "model", "org/name"), str)
    assert "\n" not in str(caught.value)
    assert (tmp_path / "model" / "README.md").exists()
