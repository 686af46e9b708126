"""Metrics: the values, their standard errors by hand, and what is refused."""

import math

import numpy as np
import pandas as pd
import pytest

from analysis.metrics import (
    Constraint,
    metric_names,
    pair,
    parse_constraint,
    replicate_metrics,
    role_metrics,
    split_metric,
    trial_metrics,
)
from trials.errors import InputError
from trials.record import Score

TUNED = [1, 0, 0, 1, 1, 0, 1, 0]
BASE = [1, 1, 0, 1, 0, 1, 1, 1]


def score(outcomes):
    values = np.array(outcomes, dtype=float)
    return Score(value=values.mean(), stderr=values.std(ddof=1) / math.sqrt(len(values)), n=len(values))


def frame(outcomes, role="math", hashes=None, task="gsm"):
    hashes = hashes or [f"h{number}" for number in range(len(outcomes))]
    return pd.DataFrame({"role": role, "task": task, "doc_id": range(len(outcomes)), "doc_hash": hashes, "score": outcomes})


def test_gain_drop_and_forgetting_are_what_the_paper_calls_them():
    found = role_metrics(Score(value=0.03, stderr=0.01, n=9), Score(value=0.26, stderr=0.02, n=9))
    assert found["gain"].value == pytest.approx(-0.23)
    assert found["drop"].value == pytest.approx(0.23)
    assert found["forgetting"].value == pytest.approx(0.23 / 0.26)
    assert (found["value"].value, found["base"].value) == (0.03, 0.26)


def test_forgetting_is_undefined_at_base_zero_and_never_divides():
    nothing = Score(value=0.0, stderr=0.0, n=8)
    with np.errstate(all="raise"):
        found = role_metrics(score(TUNED), nothing, (np.array(TUNED, dtype=float), np.zeros(8)))
    assert found["forgetting"] is None
    assert found["gain"].value == 0.5


def test_without_a_baseline_only_the_score_itself_is_defined():
    found = trial_metrics({"math": score(TUNED)}, None)
    assert found["math.value"].value == 0.5
    assert [name for name, estimate in found.items() if estimate is None] == [
        f"math.{kind}" for kind in ("gain", "drop", "forgetting", "base")
    ]


def test_every_metric_has_a_name_and_every_name_a_metric():
    found = trial_metrics({"math": score(TUNED), "commonsense": score(BASE)}, {"math": score(BASE), "commonsense": score(BASE)})
    assert list(found) == metric_names(["math", "commonsense"])


def test_paired_standard_error_of_a_gain_is_that_of_the_mean_difference():
    found = trial_metrics({"math": score(TUNED)}, {"math": score(BASE)}, frame(TUNED), frame(BASE))
    # differences 0 -1 0 0 1 -1 0 -1: mean -1/4, squares about it 4 - 8/16 = 3.5, variance 3.5/7, standard error sqrt(0.5/8)
    for kind in ("gain", "drop"):
        assert found[f"math.{kind}"].stderr == pytest.approx(0.25)
        assert found[f"math.{kind}"].paired
    unpaired = trial_metrics({"math": score(TUNED)}, {"math": score(BASE)})["math.gain"]
    assert unpaired.stderr == pytest.approx(math.hypot(score(TUNED).stderr, score(BASE).stderr))
    assert not unpaired.paired


def test_paired_standard_error_of_forgetting_is_the_delta_method_with_the_covariance():
    tuned, base = np.array(TUNED, dtype=float), np.array(BASE, dtype=float)
    (var_t, cov), (_, var_b) = np.cov(tuned, base) / len(tuned)
    t, b = tuned.mean(), base.mean()
    gradient = math.sqrt(var_t / b**2 + var_b * t**2 / b**4 - 2 * cov * t / b**3)
    found = role_metrics(score(TUNED), score(BASE), (tuned, base))
    assert found["forgetting"].stderr == pytest.approx(gradient)


def test_the_delta_method_agrees_with_a_bootstrap():
    rng = np.random.default_rng(0)
    base = (rng.random(800) < 0.6).astype(float)
    tuned = np.where(rng.random(800) < 0.8, base, (rng.random(800) < 0.3).astype(float))
    rows = rng.integers(0, 800, (2000, 800))
    spread = (1 - tuned[rows].mean(axis=1) / base[rows].mean(axis=1)).std()
    assert role_metrics(score(tuned), score(base), (tuned, base))["forgetting"].stderr == pytest.approx(spread, rel=0.1)


def test_documents_pair_by_task_and_hash_whatever_their_order():
    order = [3, 1, 7, 0, 2, 6, 5, 4]
    tuned, base = pair(frame(TUNED).iloc[order], frame(BASE), "math")
    assert sorted(zip(tuned, base, strict=True)) == sorted(zip(TUNED, BASE, strict=True))


def test_copies_of_a_document_pair_one_to_one():
    hashes = ["same"] * 4 + [f"h{number}" for number in range(4)]
    tuned, _ = pair(frame(TUNED, hashes=hashes), frame(BASE, hashes=hashes), "math")
    assert len(tuned) == len(TUNED)


@pytest.mark.parametrize(
    "other",
    [frame(BASE[:-1]), frame(BASE, task="other"), frame(BASE, role="commonsense"), frame([*BASE[:-1], None]), frame([])],
    ids=["fewer", "other task", "other role", "missing", "none"],
)
def test_documents_that_do_not_pair_give_unpaired_errors(other):
    found = trial_metrics({"math": score(TUNED)}, {"math": score(BASE)}, frame(TUNED), other)
    assert found["math.gain"] == trial_metrics({"math": score(TUNED)}, {"math": score(BASE)})["math.gain"]


def test_a_constraint_is_met_up_to_its_bound_and_never_by_an_undefined_metric():
    within = parse_constraint(" math.forgetting<=0.10 ")
    assert within == Constraint("math.forgetting", "<=", 0.1)
    assert within.violation(0.1) <= 0 < within.violation(0.11)
    above = parse_constraint("commonsense.gain >= 2e-2")
    assert above.violation(0.02) <= 0 < above.violation(0.01)
    for constraint in (within, above):
        assert constraint.violation(None) > 0
        assert constraint.violation(math.nan) > 0


@pytest.mark.parametrize("documents", [40, 50, 1319, 10042])
def test_rounding_decides_no_constraint(documents):
    for right in range(documents // 2):
        share, base = right / documents, (documents // 2) / documents
        exact = (documents // 2 - right) / (documents // 2)
        assert Constraint("math.forgetting", "<=", exact).violation((base - share) / base) == 0
        assert Constraint("math.drop", ">=", exact).violation((base - share) / base) == 0


@pytest.mark.parametrize("value", [0.1, 1e-7, -0.25, 0.123456789])
def test_a_constraint_written_out_reads_back(value):
    constraint = Constraint("math.drop", ">=", value)
    assert parse_constraint(str(constraint)) == constraint


@pytest.mark.parametrize(
    "text",
    [
        "",
        "math.forgetting",
        "math.forgetting < 0.1",
        "math.forgetting == 0.1",
        "math.forgetting <= ",
        "math.forgetting <= 10%",
        "math.forgetting <= nan",
        "math.forgetting <= inf",
        "0.1 >= math.forgetting",
        "math <= 0.1",
        "a.b.gain <= 1",
        ".gain <= 1",
    ],
)
def test_a_malformed_constraint_is_refused_in_one_line_that_names_what_is_right(text):
    with pytest.raises(InputError) as refused:
        parse_constraint(text)
    assert "\n" not in str(refused.value)
    assert "<=" in str(refused.value) or "forgetting, base" in str(refused.value)


def test_a_misspelt_metric_gets_the_nearest_and_an_unknown_role_the_known_ones():
    with pytest.raises(InputError, match=r"did you mean math\.forgetting"):
        split_metric("math.forgeting")
    with pytest.raises(InputError, match="the roles are commonsense, math"):
        parse_constraint("knowledge.gain >= 0", roles=["math", "commonsense"])


def replicated(outcomes, base=BASE, frames=True):
    return replicate_metrics(
        [{"math": score(one)} for one in outcomes],
        {"math": score(base)},
        [frame(one) if frames else None for one in outcomes],
        frame(base),
    )


def test_one_replicate_is_a_trial_without_replicates():
    assert replicated([TUNED]) == trial_metrics({"math": score(TUNED)}, {"math": score(BASE)}, frame(TUNED), frame(BASE))


def test_metrics_of_replicates_are_their_means_and_errors_count_seeds_and_documents():
    other = [1, 1, 0, 1, 1, 0, 1, 1]
    found, documents = replicated([TUNED, other]), (np.array(TUNED) + other) / 2
    assert found["math.value"].value == pytest.approx((4 / 8 + 6 / 8) / 2)
    assert found["math.gain"].value == pytest.approx(5 / 8 - 6 / 8)
    assert found["math.forgetting"].value == pytest.approx(1 / 6)
    sd = math.sqrt(2) / 8  # of 4/8 and 6/8
    for name, outcomes in (("value", documents), ("gain", documents - BASE), ("drop", documents - BASE)):
        assert found[f"math.{name}"].sd == pytest.approx(sd)
        assert found[f"math.{name}"].stderr == pytest.approx(math.hypot(outcomes.std(ddof=1) / math.sqrt(8), sd / math.sqrt(2)))
    assert found["math.forgetting"].sd == pytest.approx(sd / (6 / 8))
    assert found["math.gain"].paired
    assert (found["math.base"].sd, found["math.base"].stderr) == (None, pytest.approx(score(BASE).stderr))


def test_copies_of_a_replicate_add_no_certainty():
    once, often = replicated([TUNED]), replicated([TUNED] * 5)
    for name in ("value", "gain", "drop", "forgetting"):
        assert often[f"math.{name}"].stderr == pytest.approx(once[f"math.{name}"].stderr)
        assert often[f"math.{name}"].sd == 0


def test_the_error_of_replicates_covers_what_new_seeds_and_new_documents_would_change():
    """Against the variance that the outcomes are drawn with; taken as independent, they would give a third of it."""
    random, replicates, documents = np.random.default_rng(0), 3, 60
    truth = 0.05**2 / replicates + 0.4**2 / documents + 0.3**2 / (replicates * documents)
    squares, naive = [], []
    for _ in range(200):
        seeds, difficulty = random.normal(0, 0.05, (replicates, 1)), random.normal(0, 0.4, documents)
        outcomes = 0.5 + seeds + difficulty + random.normal(0, 0.3, (replicates, documents))
        found = replicate_metrics([{"math": score(one)} for one in outcomes], None, [frame(one) for one in outcomes], None)
        squares.append(found["math.value"].stderr ** 2)
        naive.append(outcomes.var(ddof=1) / outcomes.size)
    assert 1 < np.mean(squares) / truth < 1.25
    assert np.mean(naive) / truth < 0.5


@pytest.mark.parametrize("frames", [[None, None], [1, None], [frame(TUNED), frame(TUNED, hashes=list("abcdefgh"))]])
def test_replicates_whose_documents_do_not_match_have_an_error_that_is_not_divided_by_their_number(frames):
    frames = [frame(TUNED) if isinstance(one, int) else one for one in frames]
    found = replicate_metrics([{"math": score(TUNED)}] * 2, {"math": score(BASE)}, frames, frame(BASE))
    assert found["math.value"].stderr == pytest.approx(score(TUNED).stderr)
    assert found["math.gain"].stderr == pytest.approx(math.hypot(score(TUNED).stderr, score(BASE).stderr))
    assert not found["math.gain"].paired
    assert found["math.gain"].sd == 0


def test_replicates_at_base_zero_have_no_forgetting():
    assert replicated([TUNED, BASE], base=[0] * 8)["math.forgetting"] is None
