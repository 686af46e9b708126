"""The 16-bit type that a device computes in, and the size of its memory.

NVIDIA GPUs have bfloat16 units from compute capability 8.0 (Ampere) on. Older ones, such as the T4 (7.5), emulate it at a
fraction of their float16 rate. CPUs support bfloat16, if need be in 32-bit arithmetic.
"""

from typing import Any, Literal

import psutil

from trials.errors import InputError

Capability = tuple[int, int]
_FIRST_WITH_BFLOAT16 = (8, 0)


def half_type(capability: Capability | None) -> Literal["bfloat16", "float16"]:
    """The 16-bit type for a GPU of this compute capability; None stands for a CPU."""
    return "float16" if capability is not None and capability < _FIRST_WITH_BFLOAT16 else "bfloat16"


def capability() -> Capability | None:
    """The compute capability of this process's GPU; None without an NVIDIA GPU."""
    import torch  # here, because `half_type` is used where torch is not loaded

    if not torch.cuda.is_available() or torch.version.hip is not None:  # AMD's version numbers have another meaning
        return None
    return torch.cuda.get_device_capability()


def check(dtype: str) -> None:
    """Raises InputError if this process's device has no units for the type, or if the type is still `auto`."""
    if dtype == "auto":
        raise InputError(
            "base.dtype: auto is resolved to a type before a trial gets its key; "
            "a trial itself needs bfloat16, float16 or float32"
        )
    found = capability()
    if dtype == "bfloat16" and half_type(found) != "bfloat16":
        assert found is not None
        raise InputError(
            f"base.dtype: this GPU (compute capability {found[0]}.{found[1]}) has no units for bfloat16; "
            "use base.dtype: float16"
        )


def memory(device: Any) -> int:
    """Total bytes of the torch.device's memory, free or not."""
    import torch

    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    return psutil.virtual_memory().total
