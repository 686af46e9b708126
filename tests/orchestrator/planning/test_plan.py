"""What a plan says before a sweep runs: from records where there are some, by counting where not; held to what torch does."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator import gpu_catalog
from orchestrator.config.model import SweepConfig
from orchestrator.console.plan_table import lines, table
from orchestrator.planning import cost
from orchestrator.planning.plan import _free, check_inputs, plan
from orchestrator.planning.timings import Measured
from tests import ready
from trials.errors import InputError
from trials.hub.hub import Hub
from trials.ledger.record import Ledger, Score, TrialRecord
from trials.spec import Base, Evaluation, Lora, TrialSpec

ROOT = Path(__file__).parents[3]
QKV = ("q_proj", "k_proj", "v_proj")
ALL = (*QKV, "o_proj", "gate_proj", "up_proj", "down_proj")
LLAMA_1B = {
    "model_type": "llama",
    "num_attention_heads": 32,
    "hidden_size": 2048,
    "num_hidden_layers": 16,
    "num_key_value_heads": 8,
    "head_dim": 64,
    "intermediate_size": 8192,
    "vocab_size": 128256,
    "tie_word_embeddings": True,
}


@pytest.fixture
def config(parts) -> SweepConfig:
    return SweepConfig.model_validate(parts)


def leave(storage: Path, spec: TrialSpec, gpu: str | None = None, **seconds: float) -> None:
    """A record as a worker would leave it; `seconds` by phase, `evaluate` for each role."""
    each = seconds.pop("evaluate")
    took = seconds | {f"evaluate.{role}": each for role in spec.eval}
    scores = {role: Score(value=0.5, stderr=0.1, n=evaluation.documents or 50) for role, evaluation in spec.eval.items()}
    record = TrialRecord(key=spec.key, state="complete", spec=spec, scores=scores, seconds=took, hardware={"gpu": gpu})
    Ledger(storage).write(record)


def with_samples(config: SweepConfig, samples: int) -> TrialSpec:
    return config.model_copy(update={"data": config.data.model_copy(update={"samples": samples})}).spec({"lora.rank": 16})


# ---------------------------------------------------------------------- measured


def test_measured_training_scales_with_the_rows_and_evaluation_with_the_documents(parts, config, tmp_path):
    leave(tmp_path, with_samples(config, 100), load=1.0, mix=0.5, train=10.0, evaluate=6.0)
    parts["data"]["samples"], parts["train"]["epochs"] = 400, 2
    parts["eval"]["math"]["documents"] = 24
    found = plan(SweepConfig.model_validate(parts), tmp_path)
    assert {phase.basis for phase in found.phases.values()} == {"measured"}
    seconds = {name: phase.seconds for name, phase in found.phases.items()}
    assert seconds == pytest.approx(
        {"load": 1.0, "mix": 4.0, "train": 80.0, "evaluate.commonsense": 6.0, "evaluate.math": 12.0}
    )
    assert found.seconds_per_trial == pytest.approx(103.0)
    # two trials, and a baseline that loads and evaluates alone
    assert found.hours == found.hours_left == pytest.approx((2 * 103 + 19) / 3600)


def test_a_fixed_part_of_a_phase_does_not_grow_with_the_rows(config, tmp_path):
    """Mixing takes 4 s and 1 ms a row here: 100 rows alone would make 1,600 rows cost 65.6 s."""
    for samples in (100, 200, 400):
        leave(tmp_path, with_samples(config, samples), mix=4.0 + samples / 1000, train=samples / 10, evaluate=1.0)
    measured = Measured(map(Ledger(tmp_path).read, Ledger(tmp_path)), None)
    assert measured.seconds(with_samples(config, 1600))["mix"] == pytest.approx(5.6)
    assert measured.seconds(with_samples(config, 1600))["train"] == pytest.approx(160.0)


def test_drift_is_part_of_a_trials_time(config, tmp_path):
    leave(tmp_path, with_samples(config, 100), drift=3.0, train=10.0, evaluate=1.0)
    measured = Measured(map(Ledger(tmp_path).read, Ledger(tmp_path)), None)
    assert measured.seconds(with_samples(config, 400))["drift"] == 3.0
    assert "drift" not in measured.seconds(with_samples(config, 400).baseline())


def test_a_space_over_samples_is_reckoned_at_its_mean(parts, config, tmp_path):
    leave(tmp_path, with_samples(config, 100), load=0.0, train=10.0, evaluate=1.0)
    parts["space"] = {"data.samples": {"type": "categorical", "choices": [100, 300, 800]}}
    assert plan(SweepConfig.model_validate(parts), tmp_path).phases["train"].seconds == pytest.approx(40.0)


def test_one_trial_that_slept_does_not_move_the_estimate(config, tmp_path):
    for samples, train in ((100, 10.0), (101, 10.1), (102, 3600.0)):
        leave(tmp_path, with_samples(config, samples), load=0.0, train=train, evaluate=1.0)
    assert plan(config, tmp_path).phases["train"].seconds == pytest.approx(3.2)  # 32 rows


def test_records_of_other_hardware_are_left_out_and_the_plan_says_so(config, tmp_path):
    leave(tmp_path, with_samples(config, 100), "NVIDIA A100-SXM4-80GB", load=0.0, train=10.0, evaluate=1.0)
    leave(tmp_path, with_samples(config, 200), None, load=0.0, train=999.0, evaluate=99.0)
    same = plan(config, tmp_path, gpu="A100-80GB")
    assert same.phases["train"].seconds == pytest.approx(3.2)
    assert any("on other hardware are left out: 1 (the CPU)" in note for note in same.notes)
    other = plan(config, tmp_path, gpu="L4")
    assert {phase.basis for phase in other.phases.values()} == {"counted"}
    assert any("NVIDIA A100-SXM4-80GB" in note for note in other.notes)


def test_an_evaluation_that_was_not_measured_is_counted_beside_a_training_that_was(parts, config, tmp_path):
    leave(tmp_path, with_samples(config, 100), load=0.0, train=10.0, evaluate=1.0)
    parts["eval"]["math"]["batch_size"] = 7
    found = plan(SweepConfig.model_validate(parts), tmp_path)
    assert {name: found.phases[name].basis for name in ("train", "evaluate.commonsense", "evaluate.math")} == {
        "train": "measured",
        "evaluate.commonsense": "measured",
        "evaluate.math": "counted",
    }
    assert any("counted, not measured" in note for note in found.notes)


def test_what_the_ledger_has_is_not_left_to_run(config, tmp_path):
    for spec in (config.baseline_specs()[0], config.spec({"lora.rank": 2})):
        leave(tmp_path, spec, load=0.0, train=9.0, evaluate=1.0)
    found = plan(config, tmp_path)
    assert (found.trials, found.trials_done, found.baselines, found.baselines_done) == (2, 1, 1, 1)
    assert found.hours == pytest.approx((2 * 11 + 2) / 3600)
    assert found.hours_left == pytest.approx(11 / 3600)


def test_replicates_are_runs_of_each_trial(parts, config, tmp_path):
    leave(tmp_path, with_samples(config, 32), load=0.0, train=9.0, evaluate=1.0)
    parts["search"]["replicates"] = 3
    assert plan(SweepConfig.model_validate(parts), tmp_path).hours == pytest.approx((6 * 11 + 2) / 3600)


# ---------------------------------------------------------------------- money and limits


def test_money_is_gpu_hours_times_price_and_a_shared_gpu_counts_by_its_share(parts, config, tmp_path):
    leave(tmp_path, with_samples(config, 32), "NVIDIA L4", load=0.0, train=3598.0, evaluate=1.0)
    whole = plan(config, tmp_path, gpu="L4", price=0.8)
    assert whole.gpu_hours == pytest.approx(whole.hours)
    assert whole.money == pytest.approx(0.8 * whole.hours)
    parts["resources"]["gpus_per_trial"] = 0.25
    shared = plan(SweepConfig.model_validate(parts), tmp_path, gpu="L4", price=0.8)
    assert shared.money_left == pytest.approx(whole.money / 4)
    parts["search"]["gpu_hours"] = 0.1
    assert plan(SweepConfig.model_validate(parts), tmp_path, gpu="L4", price=0.8).money == pytest.approx(0.08)


def test_a_price_without_a_gpu_is_a_warning(parts, tmp_path):
    parts["resources"]["gpus_per_trial"] = 0
    found = plan(SweepConfig.model_validate(parts), tmp_path, price=1.0)
    assert found.money is None
    assert any("--gpu" in warning for warning in found.warnings)


def test_a_sweep_that_hours_alone_end_is_planned_without_a_number_of_trials(parts, config, tmp_path, monkeypatch):
    leave(tmp_path, with_samples(config, 32), "NVIDIA L4", load=0.0, train=358.0, evaluate=1.0)
    parts["search"]["gpu_hours"] = 2.0
    config = SweepConfig.model_validate(parts)
    monkeypatch.setattr(SweepConfig, "budget", property(lambda self: None))
    found = plan(config, tmp_path, gpu="L4", price=1.5)
    assert (found.trials, found.trials_in_time, found.money) == (None, 20, 3.0)
    assert "2 GPU-hours" in next(iter(table(found, config).columns[1].cells))


# ---------------------------------------------------------------------- memory and disk


def test_the_largest_trial_of_the_space_is_what_has_to_fit(parts, tmp_path):
    parts["space"] = {
        "lora.rank": {"type": "categorical", "choices": [4, 64]},
        "data.max_length": {"type": "int", "low": 64, "high": 1024},
        "train.learning_rate": {"type": "float", "low": 1e-5, "high": 1e-3},
    }
    parts["search"] |= {"sampler": "random", "trials": 3}
    found = plan(SweepConfig.model_validate(parts), tmp_path, gpu="T4")
    assert found.memory.settings == {"lora.rank": 64, "data.max_length": 1024}
    assert found.memory.fits
    assert found.warnings == []


def test_what_does_not_fit_the_gpu_or_the_share_of_it_is_a_warning(parts, tmp_path):
    parts["train"] = {"batch_size": 512, "micro_batch_size": 512}
    config = SweepConfig.model_validate(parts)
    assert plan(config, tmp_path, gpu="H200").memory.fits
    small = plan(config, tmp_path, gpu="T4")
    assert not small.memory.fits
    assert any(line.startswith("warning: a trial needs about") for line in lines(small))
    parts["resources"]["gpus_per_trial"] = 0.1
    assert not plan(SweepConfig.model_validate(parts), tmp_path, gpu="H200").memory.fits


def test_a_disk_that_is_too_small_is_a_warning(parts, tmp_path):
    parts["search"] |= {"sampler": "random", "trials": 10**9}
    parts["space"] = {"train.learning_rate": {"type": "float", "low": 1e-4, "high": 1e-2}}
    found = plan(SweepConfig.model_validate(parts), tmp_path)
    assert found.disk_bytes > found.disk_free
    assert any("are free" in warning for warning in found.warnings)


def test_an_object_store_has_no_free_space_to_know():
    upath = pytest.importorskip("upath", reason="universal-pathlib is not installed")
    assert _free(upath.UPath("memory://bucket/runs")) is None
    assert _free(upath.UPath("/")) > 0


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("targets", [QKV, ALL], ids=["qkv", "all"])
@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_what_is_counted_for_a_step_is_what_torch_keeps(spec, dtype, targets, dropout):
    from trials.adapters import lora as adapter
    from trials.models import base

    rows, length = 2, 96
    base_spec = spec.base.model_copy(update={"dtype": dtype})
    spec = spec.model_copy(
        update={
            "base": base_spec,
            "data": spec.data.model_copy(update={"max_length": length}),
            "lora": spec.lora.model_copy(update={"target_modules": targets, "rank": 16, "dropout": dropout}),
            "train": spec.train.model_copy(update={"batch_size": rows, "micro_batch_size": rows}),
        }
    )
    shape = cost.read_shape(base_spec, Hub())
    counted = cost.memory(shape, spec)
    with adapter.adapted(base.load(base_spec, Hub()), spec.lora, seed=0) as model:
        assert sum(p.numel() for p in model.parameters() if p.requires_grad) == shape.adapter(spec)
        kept = _kept_bytes(model.train(), rows, length)
        weights = {p.untyped_storage().data_ptr(): p.untyped_storage().nbytes() for p in model.base_model.parameters()}
    logits = rows * length * shape.vocab * 4  # what the loss keeps of them, a third of their peak
    # dropout's mask is counted as a GPU has it, a byte; the CPU keeps a float32, and none where the embedding is the input
    inputs = shape.layers * sum(shape.projections[name][0] for name in targets)
    masks = rows * length * (4 * (inputs - 3 * shape.hidden) - inputs) if dropout else 0
    assert (sum(kept) - logits - masks) / counted.activations == pytest.approx(1, abs=0.02)
    assert logits * 3 == counted.logits
    # the constants of the 4-bit blocks lie outside the parameters: an eighth of a bit a weight
    assert (sum(weights.values()) - shape.adapter(spec) * 4) / counted.weights == pytest.approx(1, abs=0.03)


@pytest.mark.parametrize(
    "lora",
    [{"layers": "last-third"}, {"layers": (1,)}, {"init": "pissa"}, {"init": "olora", "layers": "first-third"}],
    ids=lambda lora: "-".join(map(str, lora.values())),
)
def test_blocks_without_an_adapter_and_what_an_adapter_began_at_are_counted_as_such(spec, lora, tmp_path):
    from trials.adapters import lora as adapter
    from trials.adapters.low_rank import Converted
    from trials.models import base

    rows, length = 2, 96
    spec = spec.model_copy(
        update={
            "data": spec.data.model_copy(update={"max_length": length}),
            "lora": Lora(rank=16, target_modules="all-linear", **lora),
            "train": spec.train.model_copy(update={"batch_size": rows, "micro_batch_size": rows}),
        }
    )
    shape = cost.read_shape(spec.base, Hub())
    counted = cost.memory(shape, spec)
    with adapter.adapted(base.load(spec.base, Hub()), spec.lora, seed=0) as model:
        assert sum(p.numel() for p in model.parameters() if p.requires_grad) == shape.adapter(spec)
        variants = [one for module in model.modules() for one in getattr(module, "lora_variant", {}).values()]
        assert all(isinstance(one, Converted) for one in variants)
        assert sum(one.down.numel() + one.up.numel() for one in variants) == shape.begun(spec)
        kept = _kept_bytes(model.train(), rows, length)
        adapter.save(model, tmp_path / "adapter")
    assert (sum(kept) - rows * length * shape.vocab * 4) / counted.activations == pytest.approx(1, abs=0.03)
    file = tmp_path / "adapter" / "adapter_model.safetensors"
    assert file.stat().st_size == pytest.approx(4 * (shape.adapter(spec) + shape.begun(spec)), rel=0.05)


def test_the_weights_of_a_dora_adapter_are_counted_with_its_magnitudes(spec):
    from trials.adapters import lora as adapter
    from trials.models import base

    spec = spec.model_copy(update={"lora": Lora(rank=2, use_dora=True)})
    with adapter.adapted(base.load(spec.base, Hub()), spec.lora, seed=0) as model:
        trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert trained == cost.read_shape(spec.base, Hub()).adapter(spec)


def _kept_bytes(model, rows: int, length: int) -> list[int]:
    """Bytes of each tensor that a forward pass keeps for its backward pass, weights left out."""
    import torch

    begun = [
        tensor
        for module in model.modules()
        for one in getattr(module, "lora_variant", {}).values()
        for tensor in vars(one).values()
    ]
    own = {p.untyped_storage().data_ptr() for p in [*model.parameters(), *model.buffers(), *begun]}
    kept: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if (place := tensor.untyped_storage().data_ptr()) not in own:
            kept[place] = tensor
        return tensor

    ids = torch.randint(2, 500, (rows, length), generator=torch.Generator().manual_seed(0))
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        _ = model(input_ids=ids, attention_mask=torch.ones_like(ids), labels=ids).loss
    return [tensor.untyped_storage().nbytes() for tensor in kept.values()]


@pytest.mark.parametrize("kind", cost._LLAMA_LIKE)
def test_the_weights_of_every_architecture_that_is_counted_are_those_of_transformers(kind):
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    sizes = {"hidden_size": 64, "intermediate_size": 160, "num_hidden_layers": 3, "num_attention_heads": 4, "vocab_size": 512}
    made = AutoConfig.for_model(kind, **sizes, num_key_value_heads=2, head_dim=16, pad_token_id=0)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(made)
    shape = cost.shape_of(kind, made.to_dict())
    linear = sum(
        module.weight.numel()
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and "lm_head" not in name
    )
    assert linear == shape.linear
    norms_and_biases = 20 * made.hidden_size * made.num_hidden_layers
    assert abs(sum(p.numel() for p in model.parameters()) - shape.linear - shape.rest) < norms_and_biases


def test_an_architecture_that_is_laid_out_otherwise_is_not_counted():
    with pytest.raises(InputError, match="this is gpt_neox"):
        cost.shape_of("pythia", {"model_type": "gpt_neox"})


# ---------------------------------------------------------------------- counted seconds


def test_counted_seconds_are_those_that_plain_code_is_known_to_take_on_an_h200(spec):
    """Ranges: the estimates for Llama-3.2-1B and ordinary Hugging Face code that the counting was made for, twice as wide."""
    shape, machine = cost.shape_of("llama", LLAMA_1B), cost.Machine.of(gpu_catalog.find("H200"))
    trial = spec.model_copy(
        update={
            "data": spec.data.model_copy(update={"samples": 2000}),
            "train": spec.train.model_copy(update={"batch_size": 8, "micro_batch_size": 8}),
        }
    )
    assert 10 < cost.train_seconds(shape, trial, 111, machine) < 40
    hellaswag = Evaluation(task="hellaswag", metric="acc_norm")
    gsm8k = Evaluation(task="gsm8k", metric="exact_match", shots=5)
    assert 30 < cost.evaluate_seconds(shape, hellaswag, spec.base, machine) < 180
    assert 80 < cost.evaluate_seconds(shape, gsm8k, spec.base, machine) < 430


def test_rows_are_counted_in_the_base_s_tokens_where_the_data_is_at_hand(spec):
    from transformers import AutoTokenizer

    from trials import mix

    hub = Hub()
    tokenizer = AutoTokenizer.from_pretrained(hub.locate(spec.base.model))
    rows = mix.build(spec.data.model_copy(update={"samples": 400}), hub, tokenizer)
    assert cost.RowLengths(hub).mean(spec) == pytest.approx(sum(len(row.input_ids) for row in rows) / 400, rel=0.1)
    other = spec.data.model_copy(update={"mix": {"alpaca": 1.0}})  # on the hub alone
    assert cost.RowLengths(hub).mean(spec.model_copy(update={"data": other})) is None


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("NVIDIA H100 80GB HBM3", "H100-80GB"),
        ("NVIDIA A100-SXM4-40GB", "A100-40GB"),
        ("NVIDIA A100 80GB PCIe", "A100-80GB"),
        ("A100-80G", "A100-80GB"),
        ("a100", "A100-40GB"),
        ("Tesla T4", "T4"),
        ("NVIDIA GeForce RTX 4090", "RTX 4090"),
        ("rtx3090", "RTX 3090"),
        ("NVIDIA L4", "L4"),
        ("NVIDIA L40S", "L40S"),
        ("NVIDIA H200", "H200"),
    ],
)
def test_a_gpu_is_known_by_the_names_that_people_drivers_and_ray_give_it(name, kind):
    assert gpu_catalog.find(name).name == kind


def test_a_gpu_that_is_not_known_is_one_line_with_those_that_are(config, tmp_path):
    with pytest.raises(InputError, match=r"--gpu L40: not a GPU that is known here; there are H200, .*T4"):
        plan(config, tmp_path, gpu="L40")


# ---------------------------------------------------------------------- as a whole


def test_a_base_that_is_nowhere_is_planned_without_figures_and_a_note(parts, tmp_path):
    parts["base"]["model"] = "nobody/nothing"
    found = plan(SweepConfig.model_validate(parts), tmp_path)
    assert (found.seconds_per_trial, found.hours, found.memory) == (None, None, None)
    assert any("nobody/nothing" in note for note in found.notes)


def test_the_json_is_whole_and_the_table_shows_what_it_rests_on(config, tmp_path):
    found = plan(config, tmp_path, gpu="T4", price=0.5)
    again = json.loads(json.dumps(found.as_dict(), allow_nan=False))
    assert again["memory"]["parts"].keys() >= {"weights", "adapter", "activations", "logits", "evaluation"}
    assert again["phases"]["train"] == {"seconds": found.phases["train"].seconds, "basis": "counted"}
    rows = dict(zip(*(column.cells for column in table(found, config).columns), strict=True))
    assert "(counted)" in rows["a trial takes"]
    assert rows.keys() >= {"trials", "baselines", "GPU-hours", "money", "memory", "disk"}


def test_planning_loads_no_torch(tmp_path):
    code = (
        "import sys; from pathlib import Path; from orchestrator.config.model import load; "
        "from orchestrator.planning.plan import plan\n"
        f"plan(load(Path('configs/quickstart.yaml')), Path({str(tmp_path)!r})); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_inputs_are_checked_at_the_corners_of_the_space(parts):
    parts["space"] = {"data.samples": {"type": "categorical", "choices": [16, 5_000]}}
    with pytest.raises(InputError, match="needs 2500 rows"):
        check_inputs(SweepConfig.model_validate(parts))


def test_what_is_derived_costs_its_evaluations_and_no_training(parts, tmp_path):
    alone = plan(SweepConfig.model_validate(parts), tmp_path, gpu="T4")
    derived = plan(SweepConfig.model_validate(parts | {"derive": {"strength": [0.25, 0.5]}}), tmp_path, gpu="T4")
    evaluation = sum(phase.seconds for name, phase in alone.phases.items() if name.startswith("evaluate."))
    assert derived.trials == alone.trials
    assert derived.seconds_per_trial == pytest.approx(alone.seconds_per_trial + 2 * evaluation)


def test_a_model_that_the_hub_does_not_give_is_asked_for_once_by_all_plans(monkeypatch):
    asked = []

    def unreachable(model, *_, **__):
        asked.append(model)
        raise OSError("no network")

    monkeypatch.setattr(cost.huggingface_hub, "hf_hub_download", unreachable)
    for _ in range(3):
        with pytest.raises(InputError, match="nor to be had from the hub: no network"):
            cost.read_shape(Base(model="nobody/nowhere"), Hub())
    assert asked == ["nobody/nowhere"]


def test_a_plan_counts_the_rows_of_local_files_and_refuses_what_is_wrong_with_them(parts, tmp_path):
    rows = [{"q": f"question {n}", "a": f"answer {n}" if n % 3 else None} for n in range(60)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    mine = {"dataset": str(tmp_path / "rows.jsonl"), "instruction": "{{q}}", "response": "{{a}}"}
    parts["data"] = {"samples": 30, "mix": {"mine": 1.0}, "sources": {"mine": mine}}
    parts["space"] = {"lora.rank": {"type": "categorical", "choices": [2, 4]}}
    counts = plan(SweepConfig.model_validate(parts), tmp_path, gpu="T4").rows["mine"]
    assert counts["rows"] == 60 and counts["used"] == 30 and counts["no response"] > 0
    for change, expected in (
        ({"response": "{{answer}}"}, r"'answer' is undefined; the columns are q, a"),
        ({"dataset": str(tmp_path / "nowhere.jsonl")}, "no file"),
    ):
        parts["data"]["sources"] = {"mine": mine | change}
        with pytest.raises(InputError, match=expected):
            plan(SweepConfig.model_validate(parts), tmp_path, gpu="T4")


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"shots": 100_000}, "eval.math.shots: 100000 asked for, task micro_gsm has"),
        ({"documents": 10_000}, "eval.math.documents: 10000 asked for, micro_gsm has"),
        ({"metric": "nope"}, "eval.math: task micro_gsm measures exact_match"),
    ],
)
def test_plan_refuses_a_role_that_its_task_cannot_serve(parts, tmp_path, change, expected):
    parts["eval"]["math"] |= change
    with pytest.raises(InputError, match=expected):
        plan(SweepConfig.model_validate(parts), tmp_path)


def test_a_damaged_record_of_another_sweep_does_not_stop_a_plan(tmp_path):
    """Nor does one whose hardware is of an odd kind."""
    sweep = ready.build(ready.config(), tmp_path)
    folder = tmp_path / "ledger" / "another"
    folder.mkdir()
    (folder / "record.json").write_text("{")
    key = next(key for key in Ledger(tmp_path) if key != "another")
    record = json.loads((tmp_path / "ledger" / key / "record.json").read_text())
    record["hardware"] = {"gpu": ["a", 1], "threads": "many"}
    (tmp_path / "ledger" / key / "record.json").write_text(json.dumps(record))
    found = plan(ready.config(), sweep.parent)
    (note,) = (note for note in found.notes if "left out: " in note and "record.json" in note)
    assert "another/record.json" in note
