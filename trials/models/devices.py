"""Which type a device computes in: bfloat16 where it has units for it, float16 on the GPUs before them.

bfloat16 came to NVIDIA's GPUs with compute capability 8.0 (Ampere); what is older, such as the T4 (7.5), emulates it at a
fraction of its float16 rate. CPUs take bfloat16: they compute it in 32 bits where they have nothing better.
"""

from typing import Any, Literal

import psutil

from trials.errors import InputError

Capability = tuple[int, int]
_FIRST_WITH_BFLOAT16 = (8, 0)


def half_type(capability: Capability | None) -> Literal["bfloat16", "float16"]:
    """The 16-bit type for a GPU of this compute capability; None is a CPU."""
    return "float16" if capability is not None and capability < _FIRST_WITH_BFLOAT16 else "bfloat16"


def capability() -> Capability | None:
    """Of this process's GPU; None without one, and for a GPU that is not NVIDIA's. Loads torch."""
    import torch

    if not torch.cuda.is_available() or torch.version.hip is not None:
        return None
    return torch.cuda.get_device_capability()


def check(dtype: str) -> None:
    """Raises InputError where this process's device has no units for the type, or no type has been chosen."""
    if dtype == "auto":
        raise InputError(
            "base.dtype: auto stands for a type that is chosen before a trial gets its key; "
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
    """Bytes that the torch.device has, free or not."""
    import torch

    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    return psutil.virtual_memory().total
