"""Whether a trial's responses come from vLLM, and the Python that has it.

vLLM pins its own torch and transformers, so it has an environment of its own.
"""

import importlib.util
import os
import sys

from trials.errors import InputError
from trials.spec import TrialSpec

PYTHON = "SLIMSWEEP_VLLM_PYTHON"


def wanted(spec: TrialSpec) -> bool:
    return any(evaluation.engine == "vllm" for evaluation in spec.eval.values())


def check_settings(spec: TrialSpec) -> None:
    """Raises InputError for an adapter that vLLM does not run."""
    if not wanted(spec) or spec.is_baseline:
        return
    if spec.lora.use_dora:
        raise InputError("lora.use_dora: vLLM runs no DoRA; set use_dora: false, or engine: exact")
    if spec.lora.method != "lora":
        raise InputError(f"lora.method {spec.lora.method}: vLLM runs LoRA alone; set method: lora, or engine: exact")


def python() -> str:
    """The Python that has vLLM. Raises InputError where there is none."""
    named = os.environ.get(PYTHON)
    if named is None and importlib.util.find_spec("vllm") is not None:
        return sys.executable
    if named is None or not os.access(named, os.X_OK):
        found = "is not set, and this environment has no vLLM" if named is None else f"names {named}, which cannot be run"
        raise InputError(
            f"engine: vllm: {PYTHON} {found}; make an environment with vLLM (python -m venv DIR; DIR/bin/pip install vllm) and "
            f"set {PYTHON}=DIR/bin/python on every machine"
        )
    return named
