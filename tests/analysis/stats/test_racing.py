"""Racing: who cannot reach the front is given up, and luck on few documents gives up nobody else."""

import numpy as np
import pandas as pd
import pytest

from analysis.metrics.definitions import ALL_KINDS
from analysis.metrics.names import Objective
from analysis.stats import racing
from analysis.stats.paired_outcomes import Answers
from analysis.stats.racing import RISK, STAGES, Interim, Part, first_documents, level
from tests.factories.sweeps import Builder
from trials.ledger.outcomes import pack
from trials.ledger.record import TrialRecord


def answered(right, n=320, seed=0, size=1):
    """Answers of trials with these probabilities to be right on `n` documents in clusters of `size`."""
    random = np.random.default_rng(seed)
    hard = np.repeat(random.random(n // size), size)
    noise = random.normal(0, 0.1, (len(right), n))
    tuned = ((hard + noise) < np.array(right)[:, None]).astype(float)[:, None]
    return Answers({"score": tuned}, {"score": (hard < 0.5).astype(float)}, np.arange(n // size), np.arange(0, n, size))


def interim(gains, drops, share, seed=0):
    """As `stages` gives it, for two shares of right answers over different documents."""
    kind, values, parts = ALL_KINDS["gain"], [], []
    for side, right in enumerate((gains, drops)):
        first = first_documents(answered(right, seed=10 * seed + side), share)
        values.append(-first.value(kind)[:, 0])
        parts.append(Part.of(first, kind))
    return Interim(share, np.stack(values, axis=1), parts, [-1, -1])


def test_far_dominated_trial_is_given_up_at_the_first_stage():
    assert interim([0.2, 0.8], [0.3, 0.9], STAGES[0]).p_value(0, [1]) <= level(40)


@pytest.mark.parametrize("share", STAGES)
def test_trial_ahead_in_one_objective_is_never_given_up(share):
    assert interim([0.8, 0.4], [0.3, 0.9], share).p_value(0, [1]) > 0.9


def test_without_a_front_no_trial_is_given_up():
    assert interim([0.2, 0.8], [0.3, 0.9], 0.5).p_value(0, []) == 1.0


def test_risk_is_spent_over_stages_and_trials():
    assert level(40) * 40 * len(STAGES) == pytest.approx(RISK)
    assert level(400) == pytest.approx(level(40) / 10)
    assert level(None) < level(400)


def test_more_members_share_the_level():
    found = interim([0.5, 0.6, 0.6], [0.5, 0.6, 0.6], STAGES[0])
    alone = min(found.p_value(0, [member]) for member in (1, 2))
    assert alone < found.p_value(0, [1, 2]) == 2 * alone


def test_rare_loss_that_few_documents_may_have_missed_is_no_proof():
    """A member that seems better, by skewed bits: its rare losses may lie among the documents that are still to come."""
    moved = np.random.default_rng(0).exponential(1, 60) ** 2
    found = []
    for sign in (1, -1):  # losses of the member are right-skewed, or left-skewed with the same spread
        part = Part(np.stack([np.zeros(60), sign * (moved - moved.mean())]), 0.0)
        found.append(Interim(0.25, np.array([[0.0], [-2.0]]), [part], [1]).p_value(0, [1]))
    assert found[0] > 20 * found[1]


@pytest.mark.parametrize("members", [1, pytest.param(6, marks=pytest.mark.slow)])
def test_final_front_members_are_given_up_at_most_at_the_level(members):
    """As good as the members in truth, so many of them end ahead of all."""
    gains, drops, others = [0.6] * (members + 1), [0.7] * (members + 1), list(range(1, members + 1))
    lost = trials = 0
    for seed in range(200):
        if not interim(gains, drops, 1.0, seed).p_value(0, others):  # beaten at the end, so nothing is lost with it
            continue
        trials += 1
        lost += any(interim(gains, drops, share, seed).p_value(0, others) <= level(1) for share in STAGES)
    assert trials > 50 and lost / trials <= RISK


def test_all_documents_leave_no_uncertainty():
    whole = interim([0.2, 0.8], [0.3, 0.9], 1.0)
    assert whole.variance(0).tolist() == [0, 0]
    part = interim([0.2, 0.8], [0.3, 0.9], 0.25)
    assert (part.variance(0) > 0).all()
    assert whole.p_value(0, [1]) == 0.0 and whole.p_value(1, [0]) == 1.0


def test_stages_are_nested_and_hold_whole_clusters():
    whole = answered([0.5, 0.6], size=4)
    before: set[int] = set()
    for share in (*STAGES, 1.0):
        part = first_documents(whole, share)
        assert part.n == 4 * len(part.clusters) == round(share * whole.n)
        assert before <= set(part.clusters)
        before = set(part.clusters)
        for label, start in zip(part.clusters, part.starts, strict=True):
            assert (part.base["score"][start : start + 4] == whole.base["score"][4 * label : 4 * label + 4]).all()


def record(spec, documents, right):
    """The record of a trial that was right on this share of the documents, spread evenly."""
    score = (np.arange(documents) % 10 < 10 * right).astype(float)
    rows = {"role": "math", "task": "t", "doc_id": range(documents), "doc_hash": [f"d{n}" for n in range(documents)]}
    frame = pd.DataFrame(rows | {"score": score, "target": "", "response": ""})
    return TrialRecord(key=spec.key, state="complete", spec=spec, outcomes=pack(frame, spec.is_baseline))


@pytest.mark.parametrize(("documents", "judged"), [(4 * 29, False), (4 * 30, True)])
def test_trial_is_not_judged_by_fewer_than_thirty_clusters(documents, judged, tmp_path):
    specs = Builder(tmp_path)
    ruined, good = record(specs.spec(1), documents, 0.1), record(specs.spec(2), documents, 0.9)
    base = record(specs.base, documents, 0.8)
    objectives = [Objective(metric="math.gain", direction="maximize")]
    found = racing.interim([ruined, good, base], base, objectives, "all", 0.25)
    assert (found.p_value(0, [1]) <= level(40)) == judged
    assert (found.p_value(0, [2]) <= level(40)) == judged  # the base alone
    assert racing.interim([ruined, good], base, objectives, "all", 1.0).p_value(0, [1]) == 0.0
