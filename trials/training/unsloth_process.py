"""The process that trains with Unsloth: `python -m trials.training.unsloth_process FOLDER PIPE`, started by `unsloth`.

It runs trainer.fit on Unsloth's model. For every state it writes a line to the pipe, a file descriptor, and waits for an
answer on standard input. It exits when standard input closes.
"""

import unsloth  # before transformers and PEFT, parts of which it replaces

# isort: split
import json
import os
import queue
import sys
import threading
import traceback
from pathlib import Path
from typing import Any, TextIO

import torch

from trials.mix import Example
from trials.models import oom, pickles
from trials.spec import Train
from trials.training import trainer
from trials.training.unsloth import ERRORS, read_state, write_state


def model_for(request: dict[str, Any]) -> Any:
    """The base with a fresh adapter, whose weights `trainer.fit` sets from the start state."""
    base = request["base"]
    with pickles.refused(base["model_name"]):
        model, _ = unsloth.FastLanguageModel.from_pretrained(
            model_name=base["model_name"],
            revision=base["revision"],
            max_seq_length=request["max_seq_length"],
            dtype=getattr(torch, base["dtype"]),
            load_in_4bit=request["load_in_4bit"],
            load_in_16bit=not request["load_in_4bit"],
            device_map={"": torch.cuda.current_device() if torch.cuda.is_available() else "cpu"},
            use_exact_model_name=True,  # not the 4-bit copy that Unsloth publishes, whose weights may differ
            trust_remote_code=False,
        )
    return unsloth.FastLanguageModel.get_peft_model(
        model, **request["lora"], bias="none", random_state=request["train"]["seed"], use_gradient_checkpointing="unsloth"
    )


def run(folder: Path, pipe: TextIO, answers: "queue.Queue[str]") -> None:
    request = json.loads((folder / "request.json").read_text())

    def send(state: trainer.State, *, ended: bool) -> None:
        write_state(folder / "state", state)
        print(json.dumps({"ended": ended}), file=pipe, flush=True)
        answers.get()  # the next state overwrites the file

    def reached(step: int, loss: float) -> None:
        print(json.dumps({"step": step, "loss": loss}), file=pipe, flush=True)

    inputs = trainer.TrainingInputs(
        model_for(request),
        request["pad_id"],
        [Example(*row) for row in request["rows"]],
        Train.model_validate(request["train"]),
        lambda state: send(state, ended=False),
        trainer.Pace(*request["pace"]),
        reached=reached,
    )
    send(trainer.fit(inputs, read_state(folder / "start")), ended=True)


def main() -> None:
    pipe = os.fdopen(int(sys.argv[2]), "w")
    answers: queue.Queue[str] = queue.Queue()

    def listen() -> None:
        for line in sys.stdin:
            answers.put(line)
        os._exit(1)  # the parent is gone

    threading.Thread(target=listen, daemon=True).start()
    try:
        run(Path(sys.argv[1]), pipe, answers)
    except Exception as error:  # noqa: BLE001  # sent to the parent, which raises it
        kind = "OutOfMemory" if oom.is_out_of_memory(error) else type(error).__name__
        message = str(error) if kind in ERRORS else f"{kind} in the process that trains with Unsloth: {traceback.format_exc()}"
        print(json.dumps({"failed": kind, "message": message}), file=pipe, flush=True)
        answers.get()


if __name__ == "__main__":
    main()
