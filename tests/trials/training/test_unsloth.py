"""The backend that trains in another process. Unsloth itself needs a GPU and is not run here: in its place stands a package
with the signatures that Unsloth documents (2026), over the same transformers and PEFT. What is held is what this project adds:
what is asked of Unsloth, that it is imported first and there alone, that states come back, and how failures are told.
"""

import json
import math
import sys
from pathlib import Path

import pytest
import torch

from tests.factories.configs import CONFIG, deep
from trials import mix, preflight
from trials.adapters import peft_adapter
from trials.errors import InputError
from trials.hub.hub import Hub
from trials.models import base
from trials.spec import Base, Data, TrialSpec
from trials.training import trainer, unsloth

ROOT = Path(__file__).parents[3]
EVERY_STEP = trainer.Pace(0.0, math.inf)


def spec_with(**sections) -> TrialSpec:
    parts = deep(CONFIG)
    parts = {name: parts[name] for name in TrialSpec.model_fields if name in parts}
    parts["base"] = {"model": "micro", "dtype": "bfloat16"}
    parts["train"]["backend"] = "unsloth"
    for name, values in sections.items():
        parts[name] |= values
    return TrialSpec.model_validate(parts)


@pytest.fixture(scope="module")
def loaded() -> base.LoadedBase:
    return base.load(Base(model="micro", dtype="float32"), Hub())


@pytest.fixture(scope="module")
def rows(loaded) -> list[mix.Example]:
    return mix.build(Data(samples=24, mix={"micro/alpaca": 1.0}), Hub(), loaded.tokenizer)


def trained(loaded, rows, spec: TrialSpec, fit) -> tuple[trainer.State, dict[str, torch.Tensor], list[trainer.State]]:
    """The final state, the weights in the model, and the saved states."""
    states: list[trainer.State] = []
    with peft_adapter.adapted(loaded, spec.lora, 3) as model:
        end = fit(model, trainer.beginning(model, spec.train), states)
        return end, {name: weight.detach().clone() for name, weight in trainer.trainable(model).items()}, states


def inputs(model, rows, spec: TrialSpec, states: list[trainer.State]) -> trainer.TrainingInputs:
    return trainer.TrainingInputs(model, 1, rows, spec.train, states.append, EVERY_STEP)


def elsewhere(rows, spec: TrialSpec, start=None):
    path = Hub().locate("micro")

    def fit(model, beginning, states):
        return unsloth.fit(inputs(model, rows, spec, states), start or beginning, spec.base, path)

    return fit


@pytest.mark.slow
def test_other_process_trains_to_the_same_weights_and_returns_every_state(documented, loaded, rows, monkeypatch):
    asked = documented / "asked.json"
    monkeypatch.setenv("ASKED", str(asked))
    monkeypatch.setenv("TORCHDYNAMO_DISABLE", "1")  # as in a sweep's workers
    spec = spec_with(base={"dtype": "float32"}, lora={"rank": 3, "dropout": 0.1}, train={"l2": 0.01, "neftune": 2.0})
    here = trained(
        loaded,
        rows,
        spec,
        lambda model, start, states: trainer.fit(inputs(model, rows, spec, states), start),
    )
    there = trained(loaded, rows, spec, elsewhere(rows, spec))
    assert there[0].losses == here[0].losses
    assert all(torch.equal(there[1][name], here[1][name]) for name in here[1])
    assert [state.step for state in there[2]] == [1, 2, 3]
    assert "unsloth" not in sys.modules
    told = json.loads(asked.read_text())
    assert told["model_name"] == Hub().locate("micro")
    assert (told["load_in_4bit"], told["load_in_16bit"], told["use_exact_model_name"]) == ("True", "False", "True")
    assert told["compiles"]
    assert (told["dtype"], told["trust_remote_code"]) == ("torch.float32", "False")
    assert int(told["max_seq_length"]) == max(len(row.input_ids) for row in rows)
    resumed = trained(loaded, rows, spec, elsewhere(rows, spec, start=there[2][1]))
    assert resumed[0].losses == there[0].losses
    assert all(torch.equal(resumed[1][name], there[1][name]) for name in there[1])


@pytest.mark.slow
def test_errors_of_the_other_process_keep_their_type(documented, loaded, rows, monkeypatch):
    nowhere = spec_with(base={"dtype": "float32"})

    def poisoned(model, start, states):
        start.weights = {name: torch.full_like(weight, math.nan) for name, weight in start.weights.items()}
        return unsloth.fit(inputs(model, rows, nowhere, states), start, nowhere.base, Hub().locate("micro"))

    with pytest.raises(trainer.NonFiniteLoss, match=r"lower train\.learning_rate"):
        trained(loaded, rows, nowhere, poisoned)
    with pytest.raises(RuntimeError, match="in the process that trains with Unsloth: Traceback"):
        trained(
            loaded,
            rows,
            nowhere,
            lambda model, start, states: unsloth.fit(
                inputs(model, rows, nowhere, states), start, nowhere.base, str(documented)
            ),
        )
    monkeypatch.setenv("DIES", "1")
    with pytest.raises(RuntimeError, match="ended with code 7 before the training did"):
        trained(loaded, rows, nowhere, elsewhere(rows, nowhere))


@pytest.mark.parametrize(
    ("sections", "setting"),
    [
        ({"base": {"quantization": "fp4"}}, "base.quantization"),
        ({"base": {"double_quantization": False}}, "base.quantization"),
        ({"base": {"dtype": "float32"}}, "base.dtype"),
        ({"base": {"gguf": "x.gguf"}}, "base.gguf"),
        ({"lora": {"method": "oft"}}, "lora.method oft"),
        ({"lora": {"use_dora": True}}, "lora.use_dora"),
        ({"lora": {"init": "pissa"}}, "lora.init pissa"),
        ({"train": {"kl": 0.1}}, "train.kl"),
        ({"train": {"stop_kl": 0.1}}, "train.stop_kl"),
    ],
    ids=str,
)
def test_unsupported_settings_are_refused_before_the_start(worker, sections, setting):
    with pytest.raises(InputError) as caught:
        preflight.check(spec_with(**sections), worker.session.hub, worker.session.tasks)
    assert f"train.backend unsloth does not go with {setting}" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("sections", [{}, {"base": {"quantization": "none"}}, {"train": {"l2": 0.1}}], ids=str)
def test_supported_settings_are_accepted(sections):
    unsloth.check_settings(spec_with(**sections))


def test_machine_without_unsloth_or_gpu_is_refused(another, documented, monkeypatch):
    monkeypatch.setattr(unsloth.importlib.util, "find_spec", lambda name: None)
    record = another().run(spec_with())
    assert record.failure.kind == "InputError"
    assert "it is not installed here" in record.failure.message
    monkeypatch.undo()
    monkeypatch.setattr(unsloth.importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match="needs a CUDA GPU"):
        unsloth.check_machine()


def test_baseline_needs_no_backend(another):
    record = another().run(spec_with(base={"dtype": "float32"}).baseline())
    assert record.state == "complete", record.failure
