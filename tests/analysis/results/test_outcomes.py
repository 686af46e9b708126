import math
import re

import pytest

from analysis.report.build import report
from analysis.results.manifest import ManifestTrial
from analysis.results.outcomes import KeyOutcome, TrialOutcome
from tests.factories.sweeps import oom
from trials.ledger.record import Failure, GivenUp


def test_unreadable_record_is_a_failure_and_the_sweep_still_reads(usual):
    key = usual.trials[0]["key"]
    (usual.ledger.folder(key) / "record.json").write_text('{"key": ', encoding="utf-8")
    sweep = usual.load()
    assert sweep.trials["state"][0] == "failed"
    assert "not a whole record" in sweep.failures.set_index("what").loc["trial 0", "message"]
    assert key in report(sweep)


@pytest.mark.parametrize(("last", "state"), [((25, 38), "complete"), (None, "pending"), ("oom", "failed")])
def test_trial_is_complete_when_all_replicates_are_and_failed_when_one_is(builder, last, state):
    sweep = (
        builder.baseline().replicate((26, 37), None if state == "failed" else (24, 38), oom() if last == "oom" else last).load()
    )
    (trial,) = sweep.trials.to_dict("records")
    assert trial["state"] == state
    assert math.isnan(trial["commonsense.gain"]) == (state != "complete")
    assert trial["on_front"] == (state == "complete")
    assert sweep.failures["what"].tolist() == (["trial 0, replicate 3"] if state == "failed" else [])


def test_every_failure_is_listed_with_its_traceback(builder):
    trace = 'Traceback (most recent call last):\n  File "trial.py", line 1\nValueError: {}'
    failures = [Failure(kind="ValueError", message=f"{n}", traceback=trace.format(n)) for n in range(4)]
    builder.baseline().add((26, 37)).add(failure=failures[0]).replicate(failures[1], failures[2]).add(failure=failures[3])
    sweep = builder.invalid().add().load()
    what = ["trial 1", "trial 2, replicate 1", "trial 2, replicate 2", "trial 3", "trial 4"]
    assert sweep.failures["what"].tolist() == what
    failed = sweep.trials.loc[sweep.trials["state"] == "failed", "number"].tolist()
    assert failed == sorted({int(name.split(",")[0].split()[1]) for name in what})
    text = report(sweep)
    found = re.findall(r'<details class="failure".*?</details>', text, re.DOTALL)
    assert len(found) == len(what)
    for section, name in zip(found, what, strict=True):
        assert f"<strong>{name}</strong>" in section
    assert ["Traceback (most recent call last)" in section for section in found] == [True] * 4 + [False]
    assert "1 complete, 4 failed, 1 pending" in text


def test_invalid_point_is_a_failure_with_its_reason(builder):
    sweep = builder.baseline().add((26, 37)).invalid().load()
    (failure,) = sweep.failures.to_dict("records")
    assert failure == {
        "what": "trial 1",
        "key": "",
        "kind": "InvalidPoint",
        "message": "rank and method contradict",
        "traceback": "",
    }
    assert sweep.trials["state"].tolist() == ["complete", "failed"]
    assert sweep.trials["key"][1] == ""
    assert "rank and method contradict" in report(sweep)


def test_given_up_trial_has_its_workers_time_and_no_failure():
    key = "0123456789abcdef"
    beaten = GivenUp(reason="beaten", seconds=1.5)
    trial = ManifestTrial(number=0, key=key, baseline=key, params={}, given_up=beaten)
    earlier = KeyOutcome(key, failure=oom())
    found = TrialOutcome(trial, (earlier,))
    assert (found.state, found.seconds, found.failures) == ("given up", 1.5, [])
