"""Settings of a process that computes with torch on a CPU."""

import ctypes
import os

_MOST_KEPT = 2**31 - 1
"""Greatest number of bytes that the C library takes as a threshold in both ways."""
_MALLOPT = {"MALLOC_TRIM_THRESHOLD_": -1, "MALLOC_MMAP_THRESHOLD_": -3}
"""Numbers of these settings in glibc's malloc.h."""


def cpu_settings(threads: int) -> dict[str, str]:
    """Environment variables, which OpenMP and torch read when torch is imported, and the C library when the process starts.

    The system clears each page of memory at its first use. So tensors take pages of 2 MiB where the system has them, and
    memory that a pass frees stays with the process for the next one. On one core 1,830 tokens a second went through
    SmolLM2-135M in bfloat16 with large pages, in place of 1,585. On another, where large pages alone made training in float32
    slower (124 in place of 143), both together trained 142 tokens a second.

    By default a thread that waits for another one spins. Where other processes want the cores, it takes the core that the other
    thread needs. At a load of nine on two cores, two threads took 141 s for what took 17 s with passive waiting, and one thread
    8 s. On the idle machine passive waiting costs a sixth: 4.5 s in place of 3.8 s.
    """
    kept = str(_MOST_KEPT)
    return {
        "OMP_NUM_THREADS": str(threads),
        "OMP_WAIT_POLICY": "PASSIVE",
        "THP_MEM_ALLOC_ENABLE": "1",
        "MALLOC_MMAP_THRESHOLD_": kept,
        "MALLOC_TRIM_THRESHOLD_": kept,
    }


def adopt(threads: int) -> None:
    """Sets them in this process, which has not imported torch yet. What its environment has already stays."""
    # the C library has read its own at the start of the process; one that is not glibc has no such function
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    for name, value in cpu_settings(threads).items():
        if name in os.environ:
            continue
        os.environ[name] = value
        if name in _MALLOPT and mallopt is not None:
            mallopt(_MALLOPT[name], int(value))
