"""Package versions, hardware and peak memory of this process."""

import importlib.metadata
import os
import platform
import resource
import sys
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import torch

_PACKAGES = (
    "slimsweep",
    "torch",
    "transformers",
    "peft",
    "bitsandbytes",
    "datasets",
    "lm-eval",
    "accelerate",
    "unsloth",
    "numpy",
)


@cache
def versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:  # such as slimsweep, run from its folder
            found[package] = "not installed"
    return found


def hardware() -> dict[str, Any]:
    found: dict[str, Any] = {"cpu": _cpu(), "cores": os.cpu_count(), "threads": torch.get_num_threads(), "gpu": None}
    if torch.cuda.is_available():
        found["gpu"] = torch.cuda.get_device_name()
        found["cuda"] = torch.version.cuda
    return found


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def reset_peak_memory() -> None:
    """Restarts the measurement of `peak_memory`; on the host, on Linux only."""
    with suppress(OSError):  # not Linux, or forbidden in a container: then the peak is that of the whole process
        Path("/proc/self/clear_refs").write_text("5")
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()


def peak_memory() -> dict[str, int]:
    """Bytes: `host` is the process's largest resident set, `device` the accelerator's largest allocation."""
    # getrusage reports bytes on macOS and KiB elsewhere
    unit = 1 if sys.platform == "darwin" else 1024
    found = {"host": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit}
    if torch.cuda.is_available():
        found["device"] = torch.cuda.max_memory_allocated()
    return found
