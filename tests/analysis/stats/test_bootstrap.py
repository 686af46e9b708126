import numpy as np
import pytest

from analysis.stats.bootstrap import Errors, draws_for
from analysis.stats.paired_outcomes import Answers
from tests.factories.sweeps import Builder


def test_unpaired_errors_do_not_cancel_between_sweeps(tmp_path):
    """Without documents that pair each trial's error is its own: it must not cancel between sweeps."""
    draws = []
    for name, right in (("a", 30), ("b", 31)):
        builder = Builder(tmp_path / name).baseline()
        builder.add((right, 30), documents=False).add((right - 5, 31), documents=False).add((right - 6, 33), documents=False)
        draws.append((builder if name == "a" else builder.add((20, 30), documents=False)).load().draws[:, 0, 0])
    assert (draws[1] - draws[0]).std() == pytest.approx(np.hypot(draws[0].std(), draws[1].std()), rel=0.2)


def test_thousands_of_settings_take_fewer_draws():
    assert draws_for(1000) == 1000 > draws_for(1001)


def test_error_of_the_base_is_shared_by_all_trials(tmp_path):
    trials = Builder(tmp_path).baseline().add((26, 37)).add((27, 37)).load(constraints=[]).trials
    assert trials["correlation"].notna().all()


def test_truth_of_a_metric_with_a_long_tail_is_rather_larger():
    bits = np.random.default_rng(0).exponential(1, 60) ** 3
    tuned = {"bits": bits[None, None], "bytes": np.ones((1, 1, 60)), "score": np.ones((1, 1, 60))}
    base = {"bits": np.zeros(60), "bytes": np.ones(60), "score": np.ones(60)}
    collected = Errors(1, ["math.gold_bpb_delta"], 1000)
    collected.add("math", np.zeros(1, int), Answers(tuned, base, np.arange(60), np.arange(60)))
    truth = -collected.draws([], {}, "all")[:, 0, 0]
    assert np.percentile(truth, 97.5) > 1.2 * -np.percentile(truth, 2.5)


def test_flips_of_replicates_and_of_copies_count_once():
    score = np.ones((1, 1, 40))
    found = []
    for replicates, size in ((1, 1), (5, 1), (1, 4)):
        columns = {"score": np.repeat(score, replicates, axis=1)}
        clusters = np.arange(40) if size == 1 else np.arange(10)
        collected = Errors(1, ["math.gain"], 4000)
        collected.add("math", np.zeros(1, int), Answers(columns, {"score": np.ones(40)}, clusters, np.arange(0, 40, size)))
        found.append(collected.draws([], {}, "all").std())
    assert found == pytest.approx([2**0.5 / 42, 2**0.5 / 42, 2**0.5 / 12], rel=0.05)
