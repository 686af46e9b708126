"""Kinds of GPU: their memory and rates, and how to find one by a name."""

import re
import shutil
import subprocess
from dataclasses import dataclass

from trials.errors import InputError
from trials.models.devices import Capability


@dataclass(frozen=True)
class GpuKind:
    name: str
    memory: float
    """GiB that a program can use, a little below the nominal size."""
    tflops: float
    """Dense tensor-core TFLOP/s in bfloat16 with 32-bit accumulation; float16 on the T4, which has no bfloat16."""
    bandwidth: float
    """Memory bandwidth, GB/s."""
    utilization: float
    """Assumed share of `tflops` that a model of about a billion parameters reaches (model FLOPs utilisation, arXiv 2204.02311,
    appendix B). Lower on larger chips, which such a model does not fill."""


# Rates: NVIDIA's data sheets of the cards (H200, H100 SXM, A100 SXM, L40S, L4, T4, A10G as AWS G5 has it) and, for the RTX
# cards, the white papers of the Ada and the GA102 architecture. Tensor rates that are given with sparsity are halved.
KINDS = (
    GpuKind("H200", 139.0, 989, 4800, 0.10),
    GpuKind("H100-80GB", 79.0, 989, 3350, 0.10),
    GpuKind("A100-80GB", 79.0, 312, 2039, 0.20),
    GpuKind("A100-40GB", 39.4, 312, 1555, 0.20),
    GpuKind("L40S", 44.4, 362, 864, 0.20),
    GpuKind("L4", 22.0, 121, 300, 0.30),
    GpuKind("A10G", 22.0, 70, 600, 0.30),
    GpuKind("RTX 4090", 23.5, 165, 1008, 0.25),
    GpuKind("RTX 3090", 23.5, 71, 936, 0.30),
    GpuKind("T4", 14.6, 65, 320, 0.25),
)


def find(name: str) -> GpuKind:
    """The kind with a person's, a driver's ("NVIDIA A100-SXM4-80GB") or Ray's ("A100-80G") name. Raises InputError."""
    if kind := lookup(name):
        return kind
    raise InputError(f"--gpu {name}: not in the catalog; there are {', '.join(kind.name for kind in KINDS)}")


def lookup(name: str) -> GpuKind | None:
    words = set(re.findall(r"[A-Z0-9]+", name.upper().replace("RTX", " ")))
    fitting = [kind for kind in KINDS if _model(kind) in words]
    sized = [kind for kind in fitting if words & {_size(kind), f"{_size(kind)}G", f"{_size(kind)}GB"}]
    # without a size the smaller one: a plan that fits there fits both
    return min(sized or fitting, key=lambda kind: kind.memory, default=None)


# Compute capabilities below 8.0 of the cards that clouds and clusters still have (NVIDIA's list of CUDA GPUs), by the word that
# names the model; everything newer has units for bfloat16.
_OLD: dict[str, Capability] = {
    **{"T4": (7, 5), "V100": (7, 0), "TITAN": (7, 0), "P100": (6, 0), "P40": (6, 1), "P4": (6, 1)},
    **{"M60": (5, 2), "M40": (5, 2), "K80": (3, 7)},
    **dict.fromkeys(("2060", "2070", "2080", "1660", "1650"), (7, 5)),
    **dict.fromkeys(("1080", "1070", "1060"), (6, 1)),
}


def before_bfloat16(name: str) -> Capability | None:
    """Compute capability of a GPU without bfloat16 units, by its name; None for any other."""
    words = re.findall(r"[A-Z0-9]+", name.upper().replace("RTX", " ").replace("GTX", " "))
    return next((_OLD[word] for word in words if word in _OLD), None)


def _model(kind: GpuKind) -> str:
    """ "A100" of "A100-80GB", "4090" of "RTX 4090"."""
    return kind.name.removeprefix("RTX ").partition("-")[0]


def _size(kind: GpuKind) -> str:
    return kind.name.partition("-")[2].removesuffix("GB")


def local() -> str | None:
    """The driver's name of this machine's first GPU; None without one."""
    # by nvidia-smi, to load no torch
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    query = [program, "--query-gpu=name", "--format=csv,noheader"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):  # a driver without a card
        return None
    return next((line.strip() for line in answer.stdout.splitlines() if line.strip()), None)
