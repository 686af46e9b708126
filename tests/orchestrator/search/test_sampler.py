"""A sampler proposes valid points, none twice, uniformly without knowledge, and feasible ones once constraints are known."""

import math
from collections import Counter
from random import Random

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState

from orchestrator.config.load import load
from orchestrator.config.model import SweepConfig
from orchestrator.config.space import Mixture, unit_interval
from orchestrator.search.optuna_space import enqueueable, suggest
from orchestrator.search.sampler import Distinct, ask, make_sampler

SAMPLERS = ["tpe", "nsga2", "nsga3", "gp", "random", "grid"]
optuna.logging.set_verbosity(optuna.logging.ERROR)


class Search:
    """A study whose trials end at once, and the points that a sweep would have seen."""

    def __init__(self, config: SweepConfig, study: optuna.Study | None = None):
        self.config = config
        self.points: list[dict] = []
        directions = [objective.direction for objective in config.search.objectives]
        self.study = study or optuna.create_study(directions=directions)
        asked = self.study.get_trials()
        self.study.sampler = make_sampler(config, len(asked), self.seen)
        if not asked:
            for point in config.search.first:
                self.study.enqueue_trial(enqueueable(config, point))

    def seen(self, settings: dict) -> bool:
        return settings in self.points

    def step(self, values=lambda settings: (0.0, 0.0), constraint=None) -> dict | None:
        trial = ask(self.study)
        if trial is None:
            return None
        settings = suggest(self.config, trial)
        self.points.append(settings)
        if constraint is not None:
            trial.set_constraint(self.config.search.constraints[0], constraint(settings))
        self.study.tell(trial, values(settings))
        return settings

    def run(self, count: int, **outcome) -> list[dict]:
        return [settings for _ in range(count) if (settings := self.step(**outcome)) is not None]


@pytest.fixture
def config(parts, write):
    """Loads the little config with another space and search."""

    def loaded(space: dict, mix: dict | None = None, **search) -> SweepConfig:
        parts["space"] = space
        if mix is not None:
            parts["data"]["mix"] = mix
            source = {"dataset": "d", "instruction": "i", "response": "r"}
            parts["data"]["sources"] = dict.fromkeys(mix, source)
        parts["search"].update(search)
        return load(write(parts))

    return loaded


DISCRETE = {
    "lora.rank": {"type": "categorical", "choices": [2, 4, 8]},
    "train.epochs": {"type": "int", "low": 1, "high": 2, "log": True},
    "lora.use_dora": {"type": "categorical", "choices": [True, False]},
    "lora.dropout": {"type": "float", "low": 0.0, "high": 0.2, "step": 0.1, "when": {"lora.use_dora": True}},
}


# ---------------------------------------------------------------------- no point twice


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_finite_space_is_exhausted_without_repeats(config, sampler):
    found = config(DISCRETE, sampler=sampler, trials=1000)
    search = Search(found)
    points = search.run(100, values=lambda settings: (-settings["lora.rank"], settings["train.epochs"]))
    assert len(points) == found.size() == 3 * 2 * (3 + 1)
    assert len({repr(sorted(point.items())) for point in points}) == len(points)
    assert {trial.state for trial in search.study.trials} == {TrialState.COMPLETE}


def test_repeated_draw_moves_to_the_nearest_unseen_point(config):
    found = config({"train.seed": {"type": "int", "low": 0, "high": 40}}, sampler="random", trials=41)
    search = Search(found)

    class Sure(optuna.samplers.RandomSampler):
        def sample_independent(self, study, trial, param_name, param_distribution):
            return 20

    search.study.sampler = Distinct(found, Sure(), search.seen, seed=0)
    seeds = [point["train.seed"] for point in search.run(41)]
    assert seeds[0] == 20
    assert {*seeds[1:3]} == {19, 21}
    assert sorted(seeds) == list(range(41))
    assert seeds == sorted(seeds, key=lambda seed: abs(seed - 20))


def test_grid_is_proposed_in_order(config):
    found = config(DISCRETE, sampler="grid")
    assert Search(found).run(100) == list(found.grid())


def test_contradictory_settings_are_not_proposed(config, parts):
    parts["train"]["micro_batch_size"] = 4
    space = {
        "train.batch_size": {"type": "categorical", "choices": [8, 12]},
        "train.micro_batch_size": {"type": "categorical", "choices": [4, 8]},
        "train.learning_rate": {"type": "float", "low": 1e-4, "high": 1e-2, "log": True},
    }
    found = config(space, sampler="random", trials=40)
    assert all(found.valid(point) for point in Search(found).run(40))


def test_uncountable_space_repeats_no_point(config):
    space = {"train.seed": {"type": "int", "low": 0, "high": 2**31}, "lora.rank": {"type": "categorical", "choices": [2, 4]}}
    found = config(space, sampler="random", trials=30)
    search = Search(found)

    class Stuck(optuna.samplers.RandomSampler):
        def sample_independent(self, study, trial, param_name, param_distribution):
            return 2

    search.study.sampler = Distinct(found, Stuck(), search.seen, seed=0)
    assert found.size() is None
    points = search.run(30)
    assert len({repr(point) for point in points}) == 30


@pytest.mark.parametrize("sampler", [name for name in SAMPLERS if name != "grid"])
def test_resumed_sampler_does_not_repeat_its_first_draws(config, sampler):
    found = config(
        {"train.learning_rate": {"type": "float", "low": 1e-4, "high": 1e-2, "log": True}}, sampler=sampler, trials=9
    )
    search = Search(found)
    before = search.run(3)
    after = Search(found, search.study).run(3)
    assert not any(point in before for point in after)


def test_same_seed_proposes_the_same_points(config):
    found = config(DISCRETE, sampler="tpe", trials=12, seed=3)
    assert Search(found).run(12) == Search(found).run(12)


# ---------------------------------------------------------------------- conditions, points of `_`


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_inactive_parameter_is_left_out(config, sampler):
    for point in Search(config(DISCRETE, sampler=sampler, trials=20)).run(20):
        assert ("lora.dropout" in point) == point["lora.use_dora"]


def test_nested_conditions_hold(config):
    space = {
        "train.warmup": {"type": "float", "low": 0.0, "high": 0.5, "when": {"train.schedule": "cosine"}},
        "train.schedule": {"type": "categorical", "choices": ["cosine", "constant"], "when": {"lora.rank": [8, 16]}},
        "_": [{"lora.rank": rank, "lora.alpha": 2 * rank} for rank in (4, 8, 16)],
    }
    points = Search(config(space, sampler="random", trials=60)).run(60)
    for point in points:
        assert point["lora.alpha"] == 2 * point["lora.rank"]
        assert ("train.schedule" in point) == (point["lora.rank"] in (8, 16))
        assert ("train.warmup" in point) == (point.get("train.schedule") == "cosine")
    assert {point["lora.rank"] for point in points} == {4, 8, 16}


def test_paired_values_are_one_readable_parameter(config):
    found = config({"_": [{"lora.rank": 8, "base.revision": None}, {"lora.rank": 16, "base.revision": "v2"}]}, sampler="grid")
    search = Search(found)
    assert search.run(5) == [{"lora.rank": 8, "base.revision": None}, {"lora.rank": 16, "base.revision": "v2"}]
    assert search.study.trials[0].params == {"lora.rank, base.revision": "8, null"}


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_settings_of_a_finished_trial_are_read_back(config, sampler):
    space = DISCRETE | {"_": [{"lora.alpha": 8}, {"lora.alpha": 16}], "data.mix": {"type": "simplex", "step": 0.25}}
    search = Search(config(space, mix={"a": 0.5, "b": 0.25, "c": 0.25}, sampler=sampler, trials=12))
    points = search.run(12)
    assert [suggest(search.config, trial) for trial in search.study.trials] == points
    assert [{**enqueueable(search.config, point)}.keys() for point in points] == [t.params.keys() for t in search.study.trials]


def test_stepped_values_are_exact(config):
    found = config({"lora.dropout": {"type": "float", "low": 0.0, "high": 0.75, "step": 0.1}}, sampler="tpe", trials=8)
    assert {point["lora.dropout"] for point in Search(found).run(8)} == {0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7}


# ---------------------------------------------------------------------- points to try first


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_first_points_precede_and_the_sampler_completes_them(config, sampler):
    whole = {"lora.rank": 4, "train.epochs": 2, "lora.use_dora": True, "lora.dropout": 0.1}
    part = {"lora.rank": 8, "lora.use_dora": False}
    found = config(DISCRETE, sampler=sampler, trials=30, first=[whole, part, part])
    search = Search(found)
    points = search.run(100)
    assert points[0] == whole
    assert all(point.items() >= part.items() and "lora.dropout" not in point for point in points[1:3])
    assert points[1] != points[2]
    assert len(points) == len({repr(sorted(point.items())) for point in points}) == found.size()


def test_first_point_may_fix_a_mix_and_paired_values(config):
    space = {
        "_": [{"lora.rank": 8, "lora.alpha": 16}, {"lora.rank": 16, "lora.alpha": 32}],
        "data.mix": {"type": "simplex", "sources": ["a", "b"]},
        "train.learning_rate": {"type": "float", "low": 1e-5, "high": 1},
    }
    first = {"lora.rank": 16, "data.mix.a": 0.6, "data.mix.b": 0.15, "train.learning_rate": 1}
    found = config(space, mix={"a": 0.5, "b": 0.25, "c": 0.25}, sampler="random", trials=3, first=[first])
    assert Search(found).run(1) == [first | {"lora.alpha": 32}]


def test_genetic_sampler_breeds_from_the_first_points(config):
    space = {name: {"type": "float", "low": 0.0, "high": 0.9} for name in ("lora.dropout", "train.warmup")}
    first = [{"lora.dropout": 0.001 * i, "train.warmup": 0.001 * i} for i in range(4)]
    search = Search(config(space, sampler="nsga2", trials=16, first=first))  # a population of four

    def bad(settings):
        return -settings["lora.dropout"], settings["train.warmup"]

    search.run(4, values=bad)
    children = search.run(12, values=bad)
    assert sum(point["lora.dropout"] < 0.01 for point in children) >= 6  # one in a hundred by chance


# ---------------------------------------------------------------------- constraints


@pytest.mark.parametrize("sampler", ["tpe", "nsga2", "nsga3", "gp"])
@pytest.mark.parametrize("objectives", [1, 2])
def test_constraint_keeps_a_sampler_in_the_feasible_region(config, parts, sampler, objectives):
    parts["search"] |= {
        "objectives": parts["search"]["objectives"][:objectives],
        "constraints": ["math.forgetting <= 0.4"],
    }
    space = {name: {"type": "float", "low": 0.0, "high": 0.8} for name in ("lora.dropout", "train.warmup")}
    found = config(space, sampler=sampler, trials=40)

    def values(settings):  # the other parameter makes no difference
        return (settings["lora.dropout"], (settings["lora.dropout"] - 0.2) ** 2)[:objectives]

    def allowed(constraint):
        search = Search(found)
        search.run(10 if sampler == "gp" else 40, values=values, constraint=constraint)
        later = search.run(8 if sampler == "gp" else 120, values=values, constraint=constraint)
        return sum(settings["train.warmup"] <= 0.4 for settings in later) / len(later)

    kept, unaware = allowed(lambda settings: settings["train.warmup"] - 0.4), allowed(lambda settings: -1.0)
    assert kept > 0.6  # a random search keeps to half
    assert kept > unaware


def test_many_objectives_are_searched_without_a_gaussian_process(config, parts):
    metrics = ("math.gain", "math.drop", "math.forgetting", "commonsense.gain", "commonsense.drop")
    parts["search"]["objectives"] = list(metrics)
    search = Search(config(DISCRETE, sampler="auto", trials=12))
    assert len(search.run(12, values=lambda settings: (0.0,) * 5)) == 12


# ---------------------------------------------------------------------- the simplex


def mixture(parts: int, total: float = 1.0, step: float | None = None) -> Mixture:
    return Mixture(tuple(f"data.mix.{i}" for i in range(parts)), {}, total=total, step=step)


@pytest.mark.parametrize("parts", [2, 3, 5])
def test_mixes_are_uniform_over_the_simplex(parts):
    """Moments of the uniform Dirichlet distribution: E x = 1/K, E x^2 = 2/(K(K+1)), E x y = 1/(K(K+1))."""
    random, simplex, n = np.random.default_rng(0), mixture(parts), 20_000
    mixes = np.array([list(simplex.shares(u).values()) for u in random.random((n, parts - 1))])  # (n, parts)
    assert mixes.sum(axis=1) == pytest.approx(1.0, abs=1e-9)
    assert mixes.min() >= 0
    moments = mixes.T @ mixes / n
    assert mixes.mean(axis=0) == pytest.approx(1 / parts, abs=0.01)
    assert np.diag(moments) == pytest.approx(2 / (parts * (parts + 1)), abs=0.01)
    assert moments[~np.eye(parts, dtype=bool)] == pytest.approx(1 / (parts * (parts + 1)), abs=0.01)


def test_equal_triangles_hold_equally_many_mixes():
    """A triangle cut into 16 equal ones; chi-square with 15 degrees of freedom is below 37.7 in 999 of 1000 draws."""
    random, simplex, n = np.random.default_rng(1), mixture(3), 16_000
    cells = Counter()
    for u in random.random((n, 2)):
        scaled = [4 * share for share in simplex.shares(u).values()]
        cells[tuple(min(int(share), 3) for share in scaled)] += 1
    assert len(cells) == 16
    assert sum((count - n / 16) ** 2 / (n / 16) for count in cells.values()) < 37.7


@pytest.mark.parametrize(("parts", "units"), [(2, 10), (3, 10), (4, 5), (5, 4)])
def test_lattice_points_have_equal_shares_of_the_quantiles(parts, units):
    """The widths of a point's intervals multiply to 1 / number of points."""
    simplex = mixture(parts, step=1 / units)
    points = list(simplex.points())
    assert len(points) == math.comb(units + parts - 1, parts - 1)
    for point in points:
        assert sum(point.values()) == pytest.approx(1)
        assert simplex.shares(simplex.quantiles(point)) == point
        left, volume = units, 1.0
        for i, share in enumerate(list(point.values())[:-1]):
            low, high = unit_interval(round(share * units), left, parts - i)
            volume *= high - low
            left -= round(share * units)
        assert volume == pytest.approx(1 / len(points))


@pytest.mark.parametrize("step", [None, 0.05])
def test_quantiles_invert_shares(step):
    simplex, random = mixture(4, total=0.7, step=step), Random(0)
    for _ in range(500):
        shares = simplex.draw(random)
        assert sum(shares.values()) == pytest.approx(0.7, abs=1e-9)
        assert simplex.shares(simplex.quantiles(shares)) == shares
    for corner in simplex.extremes():
        assert simplex.shares(simplex.quantiles(corner)) == corner


def test_sources_outside_the_simplex_keep_their_share(config):
    space = {"data.mix": {"type": "simplex", "sources": ["a", "c"], "step": 0.1}}
    found = config(space, mix={"a": 0.3, "b": 0.5, "c": 0.2}, sampler="grid")
    points = Search(found).run(10)
    assert points == list(found.grid())
    assert len(points) == 6
    for point in points:
        mix = found.spec(point).data.mix
        assert mix == pytest.approx({"a": point["data.mix.a"], "b": 0.5, "c": 0.5 - point["data.mix.a"]})


def test_random_search_draws_uniform_mixes(config):
    found = config({"data.mix": {"type": "simplex"}}, mix={"a": 1.0, "b": 0.0, "c": 0.0}, sampler="random", trials=400)
    mixes = np.array([list(point.values()) for point in Search(found).run(400)])
    assert mixes.mean(axis=0) == pytest.approx(1 / 3, abs=0.05)
    assert (mixes > 0.5).mean(axis=0) == pytest.approx(0.25, abs=0.07)
