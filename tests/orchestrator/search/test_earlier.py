"""What a study keeps of other sweeps comes back as Optuna's trials."""

import optuna
import pytest

from orchestrator.config.model import SweepConfig
from orchestrator.search.earlier import Earlier, EarlierTrial, keep
from orchestrator.search.evidence import Aim, Evidence


def trial(key, context, rank=2):
    return EarlierTrial(
        key=key,
        settings={"lora.rank": rank},
        context=context,
        values=(0.1, 0.2),
        violations={"math.forgetting <= 0.4": -0.2},
        errors={"math.drop": 0.05},
    )


@pytest.fixture
def study():
    return optuna.create_study(directions=["maximize", "minimize"])


@pytest.fixture
def config(parts):
    parts["search"]["constraints"] = ["math.forgetting <= 0.4"]
    return SweepConfig.model_validate(parts)


def test_a_study_that_keeps_nothing_has_none(study, config):
    found = Earlier.read(study, config, set())
    assert (list(found.trials), found.own) == ([], 0)


def test_contexts_are_numbered_and_the_own_one_is_0(study, config):
    keep(
        study,
        [trial("a", {}), trial("b", {"train.epochs": 3}), trial("c", {"train.epochs": 4}), trial("d", {"train.epochs": 3})],
    )
    found = Earlier.read(study, config, set())
    assert found.contexts[0] == 0
    assert found.contexts[1] == found.contexts[3] != found.contexts[2]
    assert found.own == 1


def test_what_the_study_was_told_since_is_left_out(study, config):
    keep(study, [trial("a", {}), trial("b", {})])
    assert len(Earlier.read(study, config, {"a", None}).trials) == 1


def test_values_constraints_and_errors_are_evidence(study, config):
    keep(study, [trial("a", {})])
    evidence = Evidence.of(Earlier.read(study, config, set()).trials, Aim.of(config))
    assert evidence.values[0, :2] == pytest.approx([0.1, -0.2])
    assert evidence.variances[0, 1] == pytest.approx(0.0025)
