"""vLLM in a process of its own, which stays while its worker trains, asleep on a GPU.

It runs the trial's own base: 4-bit weights are dequantised into base.dtype and written once. An adapter is read from its
folder.
"""

import json
import os
import subprocess
import tempfile
import weakref
from pathlib import Path
from typing import Any, TextIO

import bitsandbytes as bnb
import safetensors.torch
import torch
from bitsandbytes.functional import dequantize_4bit

from trials.adapters import peft_adapter
from trials.evaluation.engine.vllm_python import python
from trials.models import oom
from trials.models.base import LoadedBase
from trials.other_process import answering

_SHARE = 0.85  # of the GPU's free memory, for vLLM's copy of the base and its cache
_RANK = 16  # vLLM's own default; a larger adapter starts it anew
_HERE = Path(__file__).parent


class VllmServer:
    """Generates with one base. The process starts with the first request, and anew where one needs a larger model length or
    rank."""

    def __init__(self, loaded: LoadedBase):
        """Writes the base, which has no adapter now."""
        python()
        self._folder = tempfile.TemporaryDirectory(prefix="slimsweep-vllm-")
        write_base(loaded, Path(self._folder.name))
        self._dtype = str(loaded.model.dtype).removeprefix("torch.")
        self._device = loaded.model.device
        self._running: list[tuple[subprocess.Popen[str], TextIO]] = []
        self._length = self._rank = 0
        self._ids: dict[str, int] = {}
        weakref.finalize(self, _end, self._running)

    def generate(self, request: dict[str, Any], adapter: Path | None) -> tuple[list[tuple[list[int], bool]], str]:
        """(tokens, stopped) for each of the request's prompts, and vLLM's version. See vllm_process for the request."""
        rank = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))["r"] if adapter is not None else 0
        if self._device.type == "cuda":
            oom.release()  # what the training left in this process's cache is vLLM's to take
        self._ensure(max(map(len, request["prompts"])) + request["max_tokens"], rank)
        if adapter is not None:
            known = peft_adapter.checksum(adapter)
            request = {**request, "adapter": str(adapter.resolve()), "id": self._ids.setdefault(known, len(self._ids) + 1)}
        process, lines = self._running[0]
        assert process.stdin is not None
        try:
            print(json.dumps(request), file=process.stdin, flush=True)
            line = lines.readline()
            if not line:
                code = process.wait()
                raise RuntimeError(f"vLLM's process ended with code {code}; the trial's log has its last words")
            answer = json.loads(line)
        except BaseException:
            _end(self._running)  # after an interruption its answer must not be taken for the next one
            raise
        if "failed" in answer:
            _end(self._running)  # it may be awake, or without its weights: a wake-up that failed leaves none behind
            raise RuntimeError(f"vLLM: {answer['failed']}: {answer['message']}")
        return [(tokens, stopped) for tokens, stopped in answer["responses"]], answer["version"]

    def end(self) -> None:
        """Ends the process; a further request starts it again."""
        _end(self._running)

    def _ensure(self, length: int, rank: int) -> None:
        if self._running and (length > self._length or rank > self._rank):
            _end(self._running)
        if not self._running:
            self._length, self._rank = max(length, self._length), max(rank, self._rank, _RANK)
            self._running.append(self._start())

    def _start(self) -> tuple[subprocess.Popen[str], TextIO]:
        settings = {"model": self._folder.name, "dtype": self._dtype, "max_model_len": self._length, "rank": self._rank}
        if self._device.type == "cuda":
            free, total = torch.cuda.mem_get_info(self._device)
            settings["gpu_memory_utilization"] = round(_SHARE * free / total, 3)
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        return answering([python(), "-P", str(_HERE / "vllm_process.py"), json.dumps(settings)], environment)


def _end(running: list[tuple[subprocess.Popen[str], TextIO]]) -> None:
    while running:
        process, lines = running.pop()
        process.kill()
        process.communicate()
        lines.close()


@torch.no_grad()
def write_base(loaded: LoadedBase, folder: Path) -> None:
    """Writes the base, with 4-bit weights dequantised, and its tokenizer for plain transformers."""
    model = loaded.model
    tensors: dict[str, torch.Tensor] = {}
    packed = {name for name, module in model.named_modules() if isinstance(module, bnb.nn.Linear4bit)}
    for name, value in model.state_dict(keep_vars=True).items():
        layer, _, own = name.rpartition(".weight")
        if layer in packed:
            if own:  # the state of the quantisation
                continue
            module = model.get_submodule(layer)
            value = dequantize_4bit(module.weight.data, module.weight.quant_state)
        tensors[name] = value.detach().to("cpu", model.dtype if value.is_floating_point() else value.dtype).contiguous()
    for tied in getattr(model, "all_tied_weights_keys", None) or ():
        tensors.pop(tied, None)
    safetensors.torch.save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    settings = {name: value for name, value in model.config.to_dict().items() if name != "quantization_config"}
    (folder / "config.json").write_text(json.dumps(settings | {"torch_dtype": str(model.dtype).removeprefix("torch.")}))
    loaded.tokenizer.save_pretrained(folder)
