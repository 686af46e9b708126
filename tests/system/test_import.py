"""What lm-eval's command line measured of micro and a tune of it gives the numbers of our own evaluation."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from analysis.report.build import write_report
from analysis.results.load import load
from orchestrator.import_results import Request, import_results
from tests.factories.bases import MICRO
from trials.hub.hub import TASK_FOLDERS
from trials.ledger.outcomes import SHARES
from trials.ledger.storage import write_text
from trials.spec import TrialSpec

pytestmark = pytest.mark.slow
ROLES = {"commonsense": "micro_swag", "math": "micro_gsm"}
OBJECTIVES = [{"metric": "commonsense.gain", "direction": "maximize"}, {"metric": "math.drop", "direction": "minimize"}]


def command_line(arguments: str, samples: dict[str, list[int]], out: Path) -> None:
    """Runs lm-eval on these documents; data sets are the folders of micro's hub, in which it runs."""
    command = [
        *(sys.executable, "-m", "lm_eval", "run", "--model", "hf", "--model_args", arguments, "--device", "cpu"),
        *("--batch_size", "32", "--include_path", str(next(one for one in TASK_FOLDERS if one.parent.name == "micro"))),
        *("--tasks", ",".join(samples), "--samples", json.dumps(samples), "--log_samples", "--output_path", str(out)),
    ]
    environment = {**os.environ, "HF_DATASETS_CACHE": str(out.parent / "cache"), "HF_HUB_OFFLINE": "1"}
    ran = subprocess.run(command, cwd=MICRO.parent, check=False, capture_output=True, text=True, env=environment)
    assert ran.returncode == 0, ran.stderr[-2000:]


@pytest.fixture(scope="module")
def storage(worker, tmp_path_factory) -> Path:
    """A storage root with the sweep `ours` and, imported from lm-eval's files, the sweep `theirs` of the same two models."""
    spec = TrialSpec.model_validate(
        {
            "base": {"model": "micro", "dtype": "float32", "quantization": "none"},
            "data": {"samples": 64, "mix": {"micro/alpaca": 1.0}},
            "lora": {"rank": 8},
            "train": {"learning_rate": 1e-2, "batch_size": 8, "micro_batch_size": 8},
            "eval": {role: {"preset": task, "documents": 80, "fewshot": "stock"} for role, task in ROLES.items()},
        }
    )
    base, tuned = (worker.run(one) for one in (spec.baseline(), spec))
    place = worker.session.ledger.root.parent
    trial = {"number": 0, "key": tuned.key, "baseline": base.key, "params": {"model": "adapter"}}
    ours = {"schema": 1, "name": "ours", "objectives": OBJECTIVES, "space": ["model"], "trials": [trial]}
    write_text(place / "ours" / "manifest.json", json.dumps({**ours, "baselines": [base.key], "documents": "half"}))
    documents = worker.session.ledger.documents(base.key)
    samples = {str(task): sorted(map(int, part["doc_id"])) for task, part in documents.groupby("task")}
    out = tmp_path_factory.mktemp("lm_eval") / "out"
    command_line(f"pretrained={MICRO},dtype=float32", samples, out)
    adapter = worker.session.ledger.folder(tuned.key) / "adapter"
    command_line(f"pretrained={MICRO},peft={adapter},dtype=float32", samples, out)
    request = Request(
        "theirs",
        roles=[f"{role}={task}" for role, task in ROLES.items()],
        objectives=[f"{one['direction']} {one['metric']}" for one in OBJECTIVES],
    )
    import_results(out, place, request, print)
    return place


def test_metrics_errors_and_intervals_are_those_of_our_own_evaluation(storage):
    ours, theirs = (load(storage / name) for name in ("ours", "theirs"))
    assert abs(ours.trials["math.gain"].iloc[0]) > 0.1  # the tune differs from its base
    columns = [
        f"{role}.{kind}{end}"
        for role in ROLES
        for kind in ("value", "base", "gain", "forgetting")
        for end in ("", "_se", "_low", "_high", "_search")
    ]
    columns += [f"math.{kind}{end}" for kind in ("format_forgetting", "flexible_drop") for end in ("", "_se", "_low", "_high")]
    np.testing.assert_array_equal(ours.trials[columns].to_numpy(float), theirs.trials[columns].to_numpy(float))
    assert ours.reference == theirs.reference
    assert ours.hypervolume == theirs.hypervolume


def test_outcomes_of_documents_are_those_of_our_own_evaluation(storage):
    ours, theirs = (load(storage / name) for name in ("ours", "theirs"))
    for column in ("key", "baseline"):
        records = [sweep.records[sweep.trials[column].iloc[0]] for sweep in (ours, theirs)]
        for role in ROLES:
            own, other = (record.outcomes[role] for record in records)
            assert own.documents == other.documents
            shares = sorted(set(SHARES) & own.columns.keys() - {"stopped"})  # lm-eval's files do not say which stopped
            assert {name: own.columns[name] for name in shares} == {name: other.columns.get(name) for name in shares}
        # log-likelihoods differ in the last digits between batches of other sizes
        margins = [record.outcomes["commonsense"].column("margin") for record in records]
        np.testing.assert_allclose(*margins, atol=2e-3)
        documents = [
            sweep.ledger.documents(record.key).sort_values(["task", "doc_id"], ignore_index=True)
            for sweep, record in zip((ours, theirs), records, strict=True)
        ]
        same = ["role", "task", "doc_id", "doc_hash", "half", "score", "target", "strict", "flexible", "marker"]
        assert documents[0][same].equals(documents[1][same])
        generated = [frame.loc[frame["role"] == "math", "response"] for frame in documents]
        assert generated[0].equals(generated[1])


def test_report_states_the_same_result(storage, tmp_path):
    pages, found = [], []
    for name in ("ours", "theirs"):
        page = write_report(load(storage / name), tmp_path / name)
        pages.append(page.read_text())
        found.append(json.loads(page.with_name("report.json").read_text()))
    for name in ("headline", "claims", "hypervolume", "reference"):
        assert found[0][name] == found[1][name], name
    flips = [one["points"][0]["flips"] for one in found]
    assert flips[0] == flips[1]
    assert {flip["role"] for flip in flips[0]} == set(ROLES)
    assert ["Repeat it" in page for page in pages] == [True, False]
    assert ["Measured by lm-eval" in page for page in pages] == [False, True]
