"""Settings of a process that computes on a CPU."""

import os
import platform
import re
import subprocess
import sys
from pathlib import Path

import pytest

from trials.run.threads import cpu_settings


def test_openmp_takes_the_threads_and_does_not_spin():
    shown = subprocess.run(
        [sys.executable, "-c", "import torch; print(torch.get_num_threads())"],
        env={**os.environ, **cpu_settings(2), "OMP_DISPLAY_ENV": "TRUE"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert shown.stdout == "2\n"
    assert "OMP_WAIT_POLICY = 'PASSIVE'" in shown.stderr


@pytest.mark.skipif(not Path("/sys/kernel/mm/transparent_hugepage").is_dir(), reason="this system has no large pages")
def test_large_tensors_ask_for_large_pages():
    script = "import torch; kept = torch.ones(64 << 20); print(open('/proc/self/smaps').read())"
    command = [sys.executable, "-c", script]
    found = subprocess.run(command, env={**os.environ, **cpu_settings(1)}, capture_output=True, text=True, check=True).stdout
    maps = re.split(r"\n(?=[0-9a-f]+-[0-9a-f]+ )", found)
    large = [one for one in maps if re.search(r"^VmFlags:.*\bhg\b", one, re.M)]
    assert max(int(re.search(r"^Size: +(\d+) kB", one, re.M)[1]) for one in large) >= 256 << 10


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library has other settings")
@pytest.mark.parametrize("adopted", ["", "from trials.run.threads import adopt; adopt(1); "], ids=["environment", "process"])
def test_memory_that_a_pass_frees_stays_for_the_next_one(adopted):
    """Else the system clears 256 MiB at each of ten passes: 1,280 large pages, or 655,360 small ones."""
    script = (
        f"{adopted}import resource, torch; made = torch.ones(1 << 26); del made\n"
        "faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt; before = faults()\n"
        "for _ in range(10): torch.ones(1 << 26)\n"
        "print(faults() - before)"
    )
    command = [sys.executable, "-c", script]
    env = {name: value for name, value in os.environ.items() if name not in cpu_settings(1)}
    env |= {} if adopted else cpu_settings(1)
    found = subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout
    assert int(found) < 1000
