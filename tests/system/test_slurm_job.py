"""The Slurm script on two machines with addresses of their own: Ray starts on both, the sweep runs, and both end.

The machines are namespaces of this one. Slurm's own programs are replaced: `srun` starts the command on both, as Slurm would.
"""

import sys
import warnings
from pathlib import Path

import pytest
import yaml

from tests.factories.configs import CONFIG, deep
from tests.factories.programs import put
from tests.system.cluster.namespaces import SHARED, Cluster, unavailable, until

SLURM = Path(__file__).parents[2] / "configs" / "cluster" / "slurm.sbatch"
# the first machine's srun hands the command and its environment, with the token, to the second, and runs it itself
SRUN = f"""while [[ $1 == --* ]]; do shift; done
export -p > {SHARED}/step.new
printf "%q " "$@" >> {SHARED}/step.new
mv {SHARED}/step.new {SHARED}/step
exec "$@"
"""

pytestmark = pytest.mark.slow


def test_slurm_script_runs_a_sweep_on_two_machines(tmp_path):
    if reason := unavailable():
        warnings.warn(f"no namespaces here, so the Slurm script is not tried on two machines: {reason}", stacklevel=1)
        pytest.skip(f"no namespaces: {reason}")
    machines = Cluster(tmp_path, workers=1, ray=False)
    try:
        (machines.shared / "little.yaml").write_text(yaml.safe_dump(deep(CONFIG), sort_keys=False))
        programs = machines.shared / ".venv" / "bin"
        put(programs, srun=SRUN, slimsweep=f'exec {sys.executable} -m orchestrator.cli "$@"', hostname="echo 10.123.0.1")
        (programs / "activate").write_text(f'PATH={SHARED}/.venv/bin:{Path(sys.executable).parent}:"$PATH"\n')
        slurm = {"SLURM_SUBMIT_DIR": SHARED, "SLURM_NNODES": "2", "SLURM_CPUS_PER_TASK": "1", "SLURM_JOB_ID": "7"}
        job = machines.head.popen("bash", str(SLURM), "little.yaml", log=tmp_path / "job.log", **slurm)
        until((machines.shared / "step").exists, 60, f"srun\n{machines.logs()}")
        second = machines.nodes[1].popen("bash", f"{SHARED}/step", log=tmp_path / "second.log")
        assert job.wait(timeout=600) == 0, machines.logs()
        assert second.wait(timeout=200) == 0, machines.logs()  # its Ray ends once it has missed the head for a minute
    finally:
        machines.close()
    log = (tmp_path / "job.log").read_text()
    assert "front of little: 2 of 2 trials" in log, log
    token = (machines.shared / "step").read_text().partition('RAY_AUTH_TOKEN="')[2].partition('"')[0]
    assert len(token) == 64 and token not in log + (tmp_path / "second.log").read_text()
