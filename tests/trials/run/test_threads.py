"""Settings of OpenMP."""

import os
import subprocess
import sys

from trials.run.threads import cpu


def test_openmp_takes_the_threads_and_does_not_spin():
    shown = subprocess.run(
        [sys.executable, "-c", "import torch; print(torch.get_num_threads())"],
        env={**os.environ, **cpu(2), "OMP_DISPLAY_ENV": "TRUE"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert shown.stdout == "2\n"
    assert "OMP_WAIT_POLICY = 'PASSIVE'" in shown.stderr
