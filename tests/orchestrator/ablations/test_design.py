"""The designs are whole on every base and at every scale."""

import pytest

from orchestrator.ablations.design import Ablations
from orchestrator.planning.plan import Gpus, plan
from tests.factories.worlds import planned
from trials.errors import InputError

NAMES = ("f1", "f2", "f3", "n1", "n2", "n3", "q1", "q2", "q3", "paper")
ABLATIONS = Ablations()


def test_paper_and_its_nine_experiments_exist():
    assert sorted(ABLATIONS.names) == sorted(NAMES)


@pytest.mark.parametrize("scale", ["full", "small"])
@pytest.mark.parametrize("base", [None, "micro", "smollm2", "taught"])
@pytest.mark.parametrize("name", NAMES)
def test_every_rule_has_cells(name, base, scale):
    if not ABLATIONS.can(name, base):
        pytest.skip(f"{name} compares bases, and {base} is one")
    for one in ABLATIONS.plan(name, base, scale):
        assert one.config.size() and one.ablation.questions
        assert not one.config.search.racing  # every arm is measured to its end
        # a share of the base's score is undefined where that is 0, the trial counts as failed and nothing is derived from it
        assert not any(objective.metric.endswith("forgetting") for objective in one.config.search.objectives)


@pytest.mark.parametrize("name", NAMES)
def test_real_design_is_planned_without_downloads(name, tmp_path):
    for one in ABLATIONS.plan(name):
        found = plan(one.config, tmp_path, Gpus("T4"), ABLATIONS.frame.shapes)
        assert found.gpu_hours is not None and found.memory is not None
        assert found.memory.fits, one.config.name


@pytest.mark.parametrize("name", NAMES)
def test_miniature_twin_has_the_real_design(name):
    real, twin = ABLATIONS.plan(name)[0].config, ABLATIONS.plan(name, "micro")[0].config
    assert real.search.replicates == twin.search.replicates
    if name != "n3":  # fewer pretraining seeds
        assert real.size() == twin.size() and len(real.derive.points()) == len(twin.derive.points())


def test_twin_notes_its_sizes():
    (note,) = ABLATIONS.plan("q1", "micro")[0].notes
    assert "data.samples times 0.128" in note and "train.learning_rate times 30" in note
    assert not ABLATIONS.plan("q1", "instruct")[0].notes
    assert "small scale" in ABLATIONS.plan("q1", "smollm2", "small")[0].notes[1]


def test_common_settings_of_ablations_have_one_key():
    configs = {name: planned(name).config for name in ("n1", "n2", "q1")}
    keys = {name: {spec.key for p in one.grid() for spec in one.specs(p)} for name, one in configs.items()}
    assert len(keys["n1"] & keys["q1"]) == 15 and len(keys["n2"] & keys["q1"]) == 3


def test_unknown_name_or_base_lists_the_known_ones():
    with pytest.raises(InputError, match="there are f1, f2"):
        ABLATIONS.plan("q9")
    with pytest.raises(InputError, match="none of micro, taught, smollm2, instruct"):
        ABLATIONS.plan("q1", "big")
    with pytest.raises(InputError, match="n3 compares bases"):
        ABLATIONS.plan("n3", "instruct")


def test_designs_are_found_from_any_working_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert sorted(Ablations().names) == sorted(NAMES)


def test_mirror_enters_the_config():
    one = planned("n1")
    assert one.mirrored(None) is one
    assert one.mirrored("mirror").config.hub_mirror == "mirror"


def test_bases_of_one_name_have_sweeps_of_their_own():
    bases = ("org-a/model-1B", "org-b/model-1B", "org-b/Model-1b", "org/micro", "micro")
    names = [one.config.name for base in bases for one in ABLATIONS.plan("q1", base, "small")]
    assert names == [f"q1-{base.replace('/', '--')}-small" for base in bases]
    assert ABLATIONS.plan("q1", "org/micro")[0].config.base.model == "org/micro"


def test_name_of_a_sweep_is_no_part_of_its_trials_keys():
    """So a sweep that an earlier version named otherwise is read from the ledger, not trained again."""
    (one,) = ABLATIONS.plan("q1", "org/model-1B", "small")
    renamed = one.config.model_copy(update={"name": "q1-model-1b-small"})
    keys, old = ([spec.key for point in config.grid() for spec in config.specs(point)] for config in (one.config, renamed))
    assert keys == old
