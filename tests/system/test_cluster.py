"""A sweep on a cluster of four Ray nodes with addresses of their own, of which one is lost in mid-trial and to which one comes.

The nodes are namespaces of this machine (tests/system/cluster/namespaces.py); trials, leases and Ray's detection of a dead node
are real, so the one run that all tests here look at takes minutes.
"""

import json
import signal
import warnings
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml
from optuna.trial import TrialState
from psutil import NoSuchProcess, Process

from tests.factories.configs import CONFIG, deep
from tests.system.cluster.namespaces import SHARED, Cluster, Node, cluster, unavailable, until
from trials.ledger.lease import _started
from trials.ledger.record import Ledger, TrialRecord

TRIALS = 18

pytestmark = pytest.mark.slow


@dataclass
class Run:
    """What is left of the sweep."""

    folder: Path
    code: int
    log: str
    lost: str
    """The node that was lost."""
    came: str
    """The node that came when the other was gone."""
    key: str
    """The trial that ran on the lost node."""

    def records(self) -> list[TrialRecord]:
        ledger = Ledger(self.folder / "shared" / "runs")
        return [record for key in ledger if (record := ledger.read(key)) is not None]

    def events(self, kind: str) -> list[dict[str, Any]]:
        lines = (self.folder / "shared" / "events.jsonl").read_text().splitlines()
        return [event for event in map(json.loads, lines) if event["event"] == kind]


def config() -> dict[str, Any]:
    parts = deep(CONFIG)
    for evaluation in parts["eval"].values():
        evaluation["documents"] = 160
    parts["data"]["samples"] = 128
    parts["space"] = {
        "lora.rank": {"type": "categorical", "choices": [2, 4, 8]},
        "train.learning_rate": {"type": "categorical", "choices": [1e-3 * step for step in range(1, TRIALS // 3 + 1)]},
    }
    return parts


def freeze_in_mid_trial(node: Node, storage: Path) -> str | None:
    """Stops the node's worker where it is, when it is in mid-trial, and returns the trial's key."""
    for process in node.workers():
        holder = {"host": node.lease_host(), "started": _started(process.pid)}
        process.send_signal(signal.SIGSTOP)
        for lease in storage.glob("ledger/*/lease.*.json"):
            finished = (lease.parent / "record.json").exists()
            # workers of two nodes may have started in the same tick
            if not finished and holder.items() <= json.loads(lease.read_text()).items():
                return lease.parent.name
        process.send_signal(signal.SIGCONT)
    return None


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    if reason := unavailable():
        warnings.warn(f"no namespaces here, so no cluster of several nodes is tried: {reason}", stacklevel=1)
        pytest.skip(f"no namespaces: {reason}")
    folder = tmp_path_factory.mktemp("cluster")
    with cluster(folder, workers=3) as nodes:
        (nodes.shared / "little.yaml").write_text(yaml.safe_dump(config(), sort_keys=False))
        driver = nodes.slimsweep(
            *("run", f"{SHARED}/little.yaml", "--address", "auto"),
            *("--storage", f"{SHARED}/runs", "--events", f"{SHARED}/events.jsonl"),
        )
        lost = nodes.nodes[1]
        key = lose_in_mid_trial(nodes, lost)
        came = nodes.add()
        wait_until_it_works(came, [node for node in nodes.nodes if node not in (lost, came)])
        code = driver.wait(timeout=900)
        return Run(folder, code, nodes.logs(), lost.name, came.name, key)


def lose_in_mid_trial(nodes: Cluster, node: Node) -> str:
    """Returns the key of the trial that ran there."""
    storage, frozen = nodes.shared / "runs", []

    def mid_trial() -> bool:
        done = len(list(storage.glob("ledger/*/record.json")))
        frozen.append(freeze_in_mid_trial(node, storage) if done >= 3 else None)
        return frozen[-1] is not None

    until(mid_trial, 240, f"a trial on {node.name} in a sweep that has finished some\n{nodes.logs()}")
    nodes.lose(node)
    return frozen[-1]


def wait_until_it_works(came: Node, others: list[Node]) -> None:
    """Holds the trials of the others until a trial runs on the node that came, as trials of an hour would.

    Tune gives a worker that becomes free the trial that a starting worker is for. Trials of seconds end more often than workers
    start on a busy machine.
    """
    held: list[Process] = []

    def works() -> bool:
        for process in (process for node in others for process in node.workers()):
            process.send_signal(signal.SIGSTOP)
            held.append(process)
        return bool(came.workers())

    try:
        until(works, 55, f"a trial on {came.name}")  # a lease expires after a minute
    finally:
        for process in held:
            with suppress(NoSuchProcess):
                process.send_signal(signal.SIGCONT)


def test_a_sweep_that_loses_a_node_finishes_with_every_trial_complete(run):
    assert run.code == 0, run.log
    study = optuna.load_study(study_name="little", storage=f"sqlite:///{run.folder}/shared/runs/little/study.db")
    assert [trial.state for trial in study.trials] == [TrialState.COMPLETE] * TRIALS
    assert Counter(record.state for record in run.records()) == {"complete": TRIALS + 1}


def test_the_trial_of_the_lost_node_runs_again_on_another(run):
    record = next(record for record in run.records() if record.key == run.key)
    assert record.state == "complete"
    assert record.host not in ("", run.lost)
    started = [event for event in run.events("trial_started") if event["key"] == run.key]
    assert len(started) == 2  # not once a second until every worker has found out by itself that its holder is dead


def test_no_trial_runs_to_its_end_twice(run):
    finished = Counter(event["key"] for event in run.events("trial_finished"))
    assert len(finished) == TRIALS + 1
    assert set(finished.values()) == {1}


def test_a_node_that_joins_in_mid_sweep_gets_trials(run):
    assert run.came in {record.host for record in run.records()}


def test_nodes_without_slimsweep_run_trials_by_the_code_that_came_with_the_sweep(run):
    assert {record.host for record in run.records()} >= {"node2", "node3"}  # tests/system/cluster hides the packages there
