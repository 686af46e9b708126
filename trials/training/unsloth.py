"""train.backend unsloth: trains in a separate process (unsloth_process) and receives its states.

Unsloth replaces parts of transformers and PEFT in every process that imports it, and must be imported before them. This process
never imports it: it sends rows and adapter weights, saves the states it receives, and copies the trained weights into its own
adapter, which is then evaluated as after any other training.
"""

import importlib.util
import json
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

import safetensors.torch
import torch

from trials.errors import InputError
from trials.ledger.checkpoint import serialized
from trials.other_process import answering, command, inherited
from trials.spec import Base, TrialSpec
from trials.training import trainer

ERRORS = {"NonFiniteLoss": trainer.NonFiniteLoss, "InputError": InputError, "OutOfMemory": MemoryError}
"""Errors of the other process by the name that it sends."""
_QUANTISED = "Unsloth quantises to nf4 with double quantisation, or not at all"
_NO_LOGITS = "Unsloth gives no logits in training"


def check_settings(spec: TrialSpec) -> None:
    """Raises InputError for settings that the backend does not support."""
    base, lora, settings = spec.base, spec.lora, spec.train
    nf4 = base.quantization == "nf4" and base.double_quantization
    for wanted, setting, reason in (
        (not nf4 and base.quantization != "none", "base.quantization", _QUANTISED),
        (base.gguf is not None, "base.gguf", "Unsloth reads no GGUF for training"),
        (base.dtype == "float32", "base.dtype float32", "Unsloth computes in bfloat16 or float16"),
        (lora.method != "lora", f"lora.method {lora.method}", "Unsloth's kernels are for LoRA"),
        (lora.use_dora, "lora.use_dora", "Unsloth's kernels are for LoRA"),
        (lora.init in ("pissa", "olora", "corda", "loftq"), f"lora.init {lora.init}", "it would train on another base"),
        (settings.loss != "nll", f"train.loss {settings.loss}", _NO_LOGITS),
        (settings.kl > 0, "train.kl", _NO_LOGITS),
        (settings.stop_kl is not None, "train.stop_kl", _NO_LOGITS),
        (spec.derive.samples is not None, "derive.samples", "its process returns only the end of the training"),
    ):
        if wanted:
            raise InputError(f"train.backend unsloth does not go with {setting}: {reason}; use train.backend transformers")


def check_machine() -> None:
    """Raises InputError if this machine lacks Unsloth or a GPU for it."""
    if importlib.util.find_spec("unsloth") is None:
        raise InputError(
            "train.backend unsloth: it is not installed here; `pip install unsloth`, or train.backend transformers"
        )
    if not torch.cuda.is_available():
        raise InputError("train.backend unsloth: it needs a CUDA GPU, and there is none here; use train.backend transformers")


def fit(inputs: trainer.TrainingInputs, start: trainer.State, base: Base, path: str) -> trainer.State:
    """As trainer.fit, in another process on the base at `path` (a folder or a hub id).

    Raises NonFiniteLoss, MemoryError if the other process ran out of memory, and RuntimeError if it failed otherwise.
    """
    with tempfile.TemporaryDirectory(prefix="slimsweep-unsloth-") as name:
        folder = Path(name)
        request = {
            "base": {"model_name": path, "revision": base.revision, "dtype": base.dtype},
            "load_in_4bit": base.quantization == "nf4",
            "max_seq_length": max(len(row.input_ids) for row in inputs.rows),
            "lora": adapter(inputs.model),
            "train": inputs.settings.model_dump(mode="json"),
            "pad_id": inputs.pad_id,
            "rows": [[row.source, row.input_ids, row.labels] for row in inputs.rows],
            "pace": [inputs.pace.seconds, inputs.pace.share],
        }
        (folder / "request.json").write_text(json.dumps(request))
        write_state(folder / "start", start)
        with _process(folder) as (process, lines):
            end = _receive(process, lines, folder, inputs)
    trainer.put_weights(end, inputs.model)
    inputs.model.eval()
    return end


def adapter(model: Any) -> dict[str, Any]:
    """The model's adapter as arguments of FastLanguageModel.get_peft_model."""
    config = model.peft_config["default"]
    return {
        "r": config.r,
        "target_modules": sorted(config.target_modules),
        "lora_alpha": config.lora_alpha,
        "lora_dropout": config.lora_dropout,
        "layers_to_transform": config.layers_to_transform,
        "use_rslora": config.use_rslora,
    }


def write_state(path: Path, state: trainer.State) -> None:
    values, tensors = state.packed()
    path.with_suffix(".safetensors").write_bytes(serialized(tensors))
    path.with_suffix(".json").write_text(json.dumps(values))


def read_state(path: Path) -> trainer.State:
    tensors = safetensors.torch.load(path.with_suffix(".safetensors").read_bytes())
    return trainer.State.unpacked(json.loads(path.with_suffix(".json").read_text()), tensors)


@contextmanager
def _process(folder: Path) -> Iterator[tuple[subprocess.Popen[str], TextIO]]:
    """The other process and the lines that it writes; it ends with the context."""
    environment = inherited()
    environment.pop("TORCHDYNAMO_DISABLE", None)  # set in a sweep's workers, but Unsloth compiles
    # if this process dies, the closed standard input ends the other
    process, lines = answering(command("trials.training.unsloth_process", str(folder)), environment)
    with lines:
        try:
            yield process, lines
        finally:
            process.kill()
            process.communicate()


def _receive(process: subprocess.Popen[str], lines: TextIO, folder: Path, inputs: trainer.TrainingInputs) -> trainer.State:
    assert process.stdin
    for line in lines:
        message = json.loads(line)
        if "step" in message:
            inputs.reached(message["step"], message["loss"])
            continue
        if "failed" in message:
            raise ERRORS.get(message["failed"], RuntimeError)(message["message"])
        state = read_state(folder / "state")
        if message["ended"]:
            return state
        inputs.save(state)
        process.stdin.write("saved\n")
        process.stdin.flush()
    raise RuntimeError(f"the process that trains with Unsloth ended with code {process.wait()} before the training did")
