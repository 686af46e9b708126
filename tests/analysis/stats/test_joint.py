"""Metrics of several roles: by hand, where a role is missing, and in a sweep that is searched for them."""

import numpy as np
import pandas as pd
import pytest

from analysis.metrics.names import split_metric
from analysis.results import schema as col
from analysis.stats.bootstrap import Errors
from analysis.stats.estimate import Setting, measure_all, measure_joint
from trials.errors import InputError
from trials.ledger.outcomes import pack

ROLES = "commonsense+math"
WORST, MEAN = f"{ROLES}.worst_forgetting", f"{ROLES}.mean_forgetting"
SUITE = [{"metric": "commonsense.gain", "direction": "maximize"}, {"metric": WORST, "direction": "minimize"}]


def everything(settings, names):
    return measure_all(settings) | measure_joint(settings, names)


def setting(builder, *specs):
    return Setting([builder.ledger.complete(spec.key) for spec in specs], builder.ledger.complete(builder.base.key))


@pytest.fixture
def builder(builder):
    return builder.baseline((20, 40))


def test_worst_and_mean_are_of_the_roles_own_rates_however_many_documents_they_have(builder):
    builder.add((19, 37)).add((10, 40))
    settings = [setting(builder, builder.spec(rank=n + 1, rate=1e-4 * (n + 1))) for n in range(2)]
    found = everything(settings, [WORST, MEAN])
    rates = np.array([[1 - 19 / 20, 1 - 37 / 40], [1 - 10 / 20, 0.0]])
    assert found[WORST].value == pytest.approx(rates.max(axis=1))
    assert found[MEAN].value == pytest.approx(rates.mean(axis=1))
    assert found[WORST].known.all() and found[WORST].paired.all()
    # documents of different roles are independent
    of_roles = np.array([found[f"{role}.forgetting"].stderr for role in ROLES.split("+")])
    assert found[MEAN].stderr == pytest.approx(np.sqrt(np.square(of_roles).sum(axis=0)) / 2, rel=0.02)
    assert found[WORST].stderr == pytest.approx([of_roles[1, 0], of_roles[0, 1]], rel=0.02)
    assert (found[WORST].low < found[WORST].value).all() and (found[WORST].value < found[WORST].high).all()


def test_greatest_of_several_rates_has_the_wider_interval_below(builder):
    builder.add((17, 30))
    found = everything([setting(builder, builder.spec(rank=1, rate=1e-4))], [WORST, MEAN])
    worst = found[WORST]
    assert worst.value[0] - worst.low[0] > 1.1 * (worst.high[0] - worst.value[0])


def test_replicates_share_their_seeds_between_roles(builder):
    builder.replicate((19, 37), (15, 30), (20, 40))
    found = everything([setting(builder, *(builder.spec(rank=1, seed=seed) for seed in range(3)))], [MEAN])[MEAN]
    each = [(1 - a / 20 + 1 - b / 40) / 2 for a, b in ((19, 37), (15, 30), (20, 40))]
    assert found.value[0] == pytest.approx(np.mean(each))
    assert found.sd[0] == pytest.approx(np.std(each, ddof=1))
    assert found.stderr[0] >= np.std(each, ddof=1) / np.sqrt(3)


def test_worst_role_is_that_of_the_mean_over_seeds(builder):
    builder.replicate((10, 40), (20, 20))
    found = everything([setting(builder, *(builder.spec(rank=1, seed=seed) for seed in range(2)))], [WORST])
    assert found["commonsense.forgetting"].value[0] == found["math.forgetting"].value[0] == found[WORST].value[0] == 0.25


def test_error_of_roles_that_tie_is_that_of_one_of_them(builder):
    builder.record(builder.base, (40, 40))
    builder.add((36, 36))
    found = everything([setting(builder, builder.spec(rank=1, rate=1e-4))], [WORST])
    assert found[WORST].stderr[0] == pytest.approx(found["math.forgetting"].stderr[0], rel=0.02)


def test_no_more_than_everything_is_lost(builder):
    builder.add((0, 0))
    found = everything([setting(builder, builder.spec(rank=1, rate=1e-4))], [WORST, MEAN])
    for name in (WORST, MEAN):
        assert (found[name].value[0], found[name].high[0], found[name].most[0]) == (1.0, 1.0, 1.0)


def test_documents_that_roles_share_are_drawn_together(builder):
    """The same answers to the same documents under two names are worth those of one."""
    made = []
    for spec, right in ((builder.base, 40), (builder.spec(rank=1), 30)):
        builder.record(spec, (right, right))
        hashes = [f"h{n}" for n in range(50)]
        rows = {"task": "t", "doc_hash": hashes, "cluster": hashes, "score": [float(n < right) for n in range(50)]}
        documents = pd.concat([pd.DataFrame({"role": role, **rows}) for role in builder.roles])
        record = builder.ledger.complete(spec.key)
        made.append(record.model_copy(update={"outcomes": pack(documents, baseline=spec.is_baseline)}))
    base, tuned = made
    found = everything([Setting([tuned], base)], [MEAN])
    assert found[MEAN].stderr[0] == pytest.approx(found["math.forgetting"].stderr[0], rel=1e-3)


def test_metric_of_several_roles_needs_each_of_them(builder):
    builder.add((19, 37))
    one = setting(builder, builder.spec(rank=1, rate=1e-4))
    assert measure_joint([one], ["knowledge+math.worst_forgetting"]) == {}
    builder.record(builder.base, (20, 0))
    found = everything([setting(builder, builder.spec(rank=1, rate=1e-4))], [WORST])[WORST]
    assert np.isnan(found.value[0]) and found.known[0]


def test_draws_spread_as_the_standard_error_says(builder):
    builder.add((17, 30)).add((12, 38))
    settings = [setting(builder, builder.spec(rank=n + 1, rate=1e-4 * (n + 1))) for n in range(2)]
    errors = Errors(2, [WORST, MEAN], 2000)
    measured = measure_joint(settings, [WORST, MEAN], watch=errors.add)
    draws = errors.draws(settings, measured, "all")
    assert draws.mean(axis=0) == pytest.approx(np.zeros((2, 2)), abs=0.01)
    # a flip of one of commonsense's 50 documents moves its rate by 1 / 20, and one flip each way is added for 100 documents
    for place, (name, flip) in enumerate(((WORST, 100 / 20), (MEAN, 100 / 20 / 2))):
        expected = np.hypot(measured[name].stderr, np.sqrt(2) * flip / 102)
        assert draws[:, :, place].std(axis=0) == pytest.approx(expected, rel=0.15)


def test_sweep_may_be_searched_for_the_forgetting_of_a_suite(builder):
    builder.add((26, 39)).add((30, 30)).add((18, 40))
    sweep = builder.load(objectives=SUITE, constraints=[f"{MEAN} <= 10%"])
    assert sweep.trials[WORST].tolist() == pytest.approx([0.025, 0.25, 0.1])
    assert sweep.trials[MEAN].tolist() == pytest.approx([(-0.3 + 0.025) / 2, (-0.5 + 0.25) / 2, 0.05])
    assert sweep.trials["on_front"].tolist() == [True, True, False]
    assert sweep.baselines[col.searched(WORST)].tolist() == [0.0]
    assert sweep.trials[["p_front", "p_feasible"]].notna().all(axis=None)
    builder.record(builder.base, (20, 0))
    assert builder.load(objectives=SUITE).front.empty


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("math+commonsense.worst_forgetting", "write commonsense\\+math.worst_forgetting"),
        ("math+math.worst_forgetting", "role 'math' is named twice"),
        ("math+learning.worst_forgetting", "ROLE\\+ROLE.KIND"),
        ("math+.worst_forgetting", "ROLE\\+ROLE.KIND"),
        ("commonsense+math.gain", "with KIND one of mean_forgetting, worst_forgetting"),
        ("commonsense+math.worst_forgeting", "did you mean commonsense\\+math.worst_forgetting"),
        ("math.worst_forgetting", "worst_forgetting is of several roles: ROLE\\+ROLE.worst_forgetting"),
        ("math+comonsense.worst_forgetting", "has the role 'comonsense'; did you mean commonsense\\+math.worst_forgetting"),
    ],
)
def test_name_of_a_joint_metric_that_is_none_is_refused(name, reason):
    with pytest.raises(InputError, match=reason):
        split_metric(name, ["math", "commonsense"])
