"""Proposals go where a gain is likely, given errors, constraints and running trials."""

import optuna
import pytest
from optuna.trial import TrialState

from orchestrator.config.load import load
from orchestrator.search.earlier import EarlierTrial, keep
from orchestrator.search.evidence import BASE, ERRORS
from orchestrator.search.optuna_space import suggest
from orchestrator.search.sampler import ask, make_sampler

SPACE = {
    "lora.dropout": {"type": "float", "low": 0.0, "high": 0.8},
    "train.warmup": {"type": "float", "low": 0.0, "high": 0.8},
}


class Search:
    """A study of a config's sampler, and points that its trials have seen."""

    def __init__(self, config, study=None):
        self.config = config
        self.points: list[dict] = []
        self.study = study or optuna.create_study(directions=["maximize", "minimize"])
        self.study.sampler = make_sampler(config, len(self.study.trials), self.points.__contains__)

    def start(self):
        trial = ask(self.study)
        settings = suggest(self.config, trial)
        self.points.append(settings)
        return trial, settings

    def run(self, count, outcome):
        """`outcome`: settings -> (values, violation, standard errors); None for a failure."""
        for _ in range(count):
            trial, settings = self.start()
            found = outcome(settings)
            if found is None:
                self.study.tell(trial, state=TrialState.FAIL)
                continue
            values, violation, errors = found
            trial.set_constraint("math.forgetting <= 0.4", violation)
            trial.set_user_attr(ERRORS, errors)
            self.study.tell(trial, values)
        return self.points[-count:]


@pytest.fixture
def config(parts, write):
    def loaded(space=SPACE, **search):
        parts["space"] = space
        parts["search"] |= {"sampler": "gp", "trials": 40, "constraints": ["math.forgetting <= 0.4"], **search}
        return load(write(parts))

    return loaded


def precise(settings):
    gain = 0.2 - (settings["lora.dropout"] - 0.3) ** 2
    return (gain, 0.0), -1.0, {"commonsense.gain": 0.001, "math.drop": 0.001}


def test_proposals_gather_at_the_best_settings(config):
    later = Search(config()).run(16, precise)[-6:]
    assert sum(abs(point["lora.dropout"] - 0.3) < 0.15 for point in later) >= 4


def test_the_same_history_and_seed_give_the_same_proposal(config):
    one, other, third = (Search(config(seed=seed)) for seed in (1, 1, 2))
    points = [search.run(9, precise) for search in (one, other, third)]
    assert points[0] == points[1] != points[2]


def test_a_resumed_study_goes_on_as_if_it_had_not_stopped(config):
    whole, first = Search(config()), Search(config())
    expected = whole.run(10, precise)
    first.run(8, precise)
    resumed = Search(config(), first.study)
    resumed.points += first.points
    assert resumed.run(2, precise) == expected[8:]


def test_running_trials_are_not_proposed_again(config):
    search = Search(config())
    search.run(10, precise)
    running = [search.start()[1] for _ in range(4)]
    for i, point in enumerate(running):
        for other in running[:i]:
            apart = max(abs(point[path] - other[path]) for path in SPACE)
            assert apart > 0.01


def test_a_lucky_but_noisy_measurement_attracts_fewer_proposals_than_a_precise_one(config):
    def at_corner(error):
        def outcome(settings):
            lucky = settings["lora.dropout"] > 0.6
            stderr = error if lucky else 0.01
            return (0.3 if lucky else 0.1, 0.0), -1.0, {"commonsense.gain": stderr, "math.drop": 0.01}

        later = Search(config()).run(14, outcome)[-6:]
        return sum(point["lora.dropout"] > 0.5 for point in later)

    assert at_corner(0.01) > at_corner(2.0)


def test_the_infeasible_region_is_left(config):
    def outcome(settings):
        values, _, errors = precise({"lora.dropout": settings["lora.dropout"]})
        return values, settings["train.warmup"] - 0.4, {**errors, "math.forgetting": 0.01}

    later = Search(config()).run(18, outcome)[-8:]
    assert sum(point["train.warmup"] <= 0.42 for point in later) >= 6


def test_a_study_of_an_earlier_version_goes_on(config):
    """Its trials have no errors, and the study no base."""
    tpe = Search(config(sampler="tpe"))
    for _ in range(8):
        trial, settings = tpe.start()
        tpe.study.tell(trial, precise(settings)[0])
    resumed = Search(config(sampler="auto"), tpe.study)
    assert len(resumed.run(3, precise)) == 3


def test_failed_and_given_up_trials_are_no_obstacle(config):
    def outcome(settings):
        return None if settings["train.warmup"] > 0.4 else precise(settings)

    points = Search(config()).run(20, outcome)
    failed = [point for point in points[-6:] if point["train.warmup"] > 0.4]
    assert len(failed) <= 3


def test_conditional_settings_are_searched_where_they_are_active(config):
    space = {
        "lora.use_dora": {"type": "categorical", "choices": [True, False]},
        "lora.dropout": {"type": "float", "low": 0.0, "high": 0.8, "when": {"lora.use_dora": True}},
    }

    def outcome(settings):
        gain = 0.3 - (settings["lora.dropout"] - 0.5) ** 2 if settings["lora.use_dora"] else 0.1
        return (gain, 0.0), -1.0, {"commonsense.gain": 0.01, "math.drop": 0.01}

    points = Search(config(space)).run(16, outcome)
    assert all(("lora.dropout" in point) == point["lora.use_dora"] for point in points)
    later = [point.get("lora.dropout", 0.0) for point in points[-6:]]
    assert sum(abs(dropout - 0.5) < 0.2 for dropout in later) >= 4


def test_a_partly_queued_point_keeps_what_was_queued(config):
    search = Search(config())
    search.run(8, precise)
    search.study.enqueue_trial({"train.warmup": 0.7})
    _, settings = search.start()
    assert settings["train.warmup"] == 0.7


def test_the_base_leaves_nothing_to_gain_behind_it(config):
    """Trials that are worse than the base in everything promise nothing, so proposals go to where one beats it."""

    def outcome(settings):
        return (settings["lora.dropout"] - 0.4, settings["train.warmup"]), -1.0, {"commonsense.gain": 0.01, "math.drop": 0.01}

    search = Search(config())
    search.study.set_user_attr(f"{BASE}key", [0.0, 0.0])
    later = search.run(16, outcome)[-6:]
    assert sum(point["lora.dropout"] > 0.4 for point in later) >= 5


def earlier(points, outcome, context=None):
    found = []
    for place, settings in enumerate(points):
        values, violation, errors = outcome(settings)
        violations = {"math.forgetting <= 0.4": violation}
        found.append(
            EarlierTrial(
                key=f"k{place}", settings=settings, context=context or {}, values=values, violations=violations, errors=errors
            )
        )
    return found


def grid(count=5):
    steps = [0.8 * place / (count - 1) for place in range(count)]
    return [{"lora.dropout": one, "train.warmup": other} for one in steps for other in steps]


def test_other_sweeps_spare_the_design(config):
    search = Search(config())
    keep(search.study, earlier(grid(), precise))
    later = search.run(6, precise)[1:]
    assert sum(abs(point["lora.dropout"] - 0.3) < 0.15 for point in later) >= 4


def test_the_best_point_of_another_sweep_is_proposed_again(config):
    search = Search(config())
    best = {"lora.dropout": 0.3125, "train.warmup": 0.7071}

    def peaked(settings):
        values, violation, errors = precise(settings)
        return ((values[0] + 0.5 * (settings == best), 0.0), violation, errors)

    keep(search.study, earlier([*grid(), best], peaked))
    assert best in search.run(4, peaked)
