"""The curve over a share, its error, and the share that keeps a bound."""

import numpy as np
import pytest

from analysis.stats.response import NEEDED, Needed, Response, needed, respond, trainings_needed
from tests.factories.mix_worlds import holds, simulated


def responded(world, errors=1.0):
    return respond(world.shares, world.others, world.values, errors * world.errors)


def test_planted_law_is_found():
    world = simulated(np.random.default_rng(0), trials=60, documents=1000)
    response = responded(world)
    assert response.differs and response.change[0] < -0.15
    found = needed(response, "<=", 0.08)
    true = world.at[np.argmax(world.truth <= 0.08)]
    assert found.verdict == "from" and found.low <= true <= found.high
    assert abs(found.share - true) < 0.05


def test_share_without_effect_cannot_be_told():
    random = np.random.default_rng(2)
    found = [responded(simulated(random, spread=0.0, floor=0.08)) for _ in range(40)]
    assert np.mean([one.differs for one in found]) <= 0.1  # 5 % by chance
    assert np.mean([needed(one, "<=", 0.08).share is not None for one in found]) <= 0.05


@pytest.mark.parametrize("multiplied", [False, True])
def test_what_is_said_is_true_in_19_of_20_sweeps(multiplied):
    random, bound = np.random.default_rng(1), 0.09
    worlds = [simulated(random, multiplied=multiplied) for _ in range(40)]
    found = [needed(responded(world), "<=", bound) for world in worlds]
    assert sum(one.share is not None for one in found) >= 20  # it says something
    assert np.mean([holds(one, world, bound) for one, world in zip(found, worlds, strict=True)]) >= 0.9


def test_error_that_all_trainings_share_widens_the_curve():
    world = simulated(np.random.default_rng(0))
    shift = np.random.default_rng(1).normal(0, 0.05, (len(world.errors), 1))
    widths = [np.mean(one.high - one.low) for one in (responded(world, 0.0), responded(world))]
    assert widths[0] < widths[1]
    wide = respond(world.shares, world.others, world.values, world.errors + shift)
    assert np.mean(wide.high - wide.low) > 2 * widths[1]
    assert wide.change[2] - wide.change[1] < 0.2 + 1.2 * np.ptp(responded(world).change[1:])  # a change cancels it


def test_nothing_is_said_beyond_the_shares_that_were_tried():
    world = simulated(np.random.default_rng(0))
    response = respond(0.1 + 0.3 * world.shares, world.others, world.values, world.errors)
    assert (response.shares.min(), response.shares.max()) == pytest.approx((0.1, 0.4))


def test_share_that_moved_with_another_setting_has_no_curve():
    world = simulated(np.random.default_rng(0))
    others = np.column_stack([world.others, 3 - 2 * world.shares])
    assert respond(world.shares, others, world.values, world.errors) is None


def test_equal_values_have_a_curve_without_change():
    shares = np.linspace(0, 1, 15)
    response = respond(shares, np.empty((15, 0)), np.full(15, 0.04), np.zeros((10, 15)))
    assert response.change == pytest.approx((0, 0, 0), abs=1e-6)
    assert needed(response, "<=", 0.05) == Needed("everywhere")


def test_more_settings_need_more_trainings():
    assert trainings_needed(0) == NEEDED < trainings_needed(4)


SHARES = np.linspace(0, 1, 5)
CURVES = {
    "from": ([5, 4, 3, 2, 1], 0.5, (2.5, Needed("from", 0.75, 0.25, 0.75))),
    "up to": ([1, 2, 3, 4, 5], 0.5, (2.5, Needed("up to", 0.25, 0.25, 0.75))),
    "everywhere": ([1, 1, 1, 1, 1], 0.5, (2, Needed("everywhere"))),
    "nowhere": ([3, 3, 3, 3, 3], 0.5, (2, Needed("nowhere"))),
    "nowhere near": ([5, 4, 3, 3, 3], 1.5, (3, Needed("from", None, 0.0, None))),
    "kept at last": ([5, 4, 3, 2, 1], 3.5, (4.6, Needed("from", None, None, 1.0))),
    "cannot tell": ([3, 3, 3, 3, 3], 2, (2, Needed("cannot tell"))),
}


@pytest.mark.parametrize(("mean", "half", "expected"), CURVES.values(), ids=list(CURVES))
def test_share_that_keeps_a_bound_is_read_off_the_interval(mean, half, expected):
    middle = np.array(mean, dtype=float)
    bound, verdict = expected
    response = Response(SHARES, middle, middle - half, middle + half, (0.0, 0.0, 0.0))
    assert needed(response, "<=", bound) == verdict
    turned = Response(SHARES, -middle, -middle - half, -middle + half, (0.0, 0.0, 0.0))
    assert needed(turned, ">=", -bound) == verdict


def test_bound_that_is_kept_in_the_middle_alone_cannot_be_told():
    high = np.array([9.0, 6.0, 2.0, 4.0, 6.0])
    response = Response(SHARES, high - 2, high - 4, high, (0.0, 0.0, 0.0))
    assert needed(response, "<=", 3) == Needed("cannot tell")
