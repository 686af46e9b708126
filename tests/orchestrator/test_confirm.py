"""`slimsweep confirm` trains the settings of the front again."""

import json

import pytest
import yaml

from analysis.results.load import load
from orchestrator.confirm import confirming
from tests.factories.command import slimsweep
from tests.factories.configs import CONFIG, deep
from tests.factories.sweeps import Builder
from trials.errors import InputError
from trials.yaml_file import dump


@pytest.fixture
def found(tmp_path):
    """A sweep whose front are its trials 0 and 1, under seed 0."""
    builder = Builder(tmp_path).baseline().add((30, 38)).add((26, 40)).add((21, 30))
    builder.load()
    config = deep(CONFIG)
    config["name"] = "quickstart"
    config["space"] = {
        "lora.rank": {"type": "int", "low": 1, "high": 8},
        "train.learning_rate": {"type": "float", "low": 1e-5, "high": 1e-2},
    }
    config["search"] |= {
        "sampler": "tpe",
        "trials": 14,
        "first": [{"lora.rank": 2}],
        "constraints": ["math.forgetting <= 0.10"],
    }
    (builder.folder / "sweep.yaml").write_text(yaml.safe_dump(config))
    return builder


def test_front_is_trained_again_under_seeds_that_nobody_used(found):
    config = confirming(load(found.folder), seeds=3)
    assert config.name == "quickstart-confirmed"
    points = list(config.grid())
    assert [point["lora.rank"] for point in points] == [1, 2]
    seeds = [(spec.data.seed, spec.train.seed) for spec in config.specs(points[0])]
    assert seeds == [(1, 1), (2, 2), (3, 3)]
    assert config.search.constraints == ("math.forgetting <= 0.10",)
    assert (config.search.trials, config.search.first, config.budget) == (None, (), 2)
    assert not config.search.racing
    assert not confirming(load(found.folder), seeds=1).search.racing


def test_front_of_a_search_with_looks_is_measured_to_its_end(found):
    path = found.folder / "sweep.yaml"
    config = yaml.safe_load(path.read_text())
    config["search"] |= {"sampler": "gp", "multi_fidelity": True}
    path.write_text(yaml.safe_dump(config))
    assert not confirming(load(found.folder), seeds=3).search.multi_fidelity


def test_searched_seeds_are_no_settings_of_a_confirmation(found):
    for trial, seed in zip(found.trials, (4, 9, 2), strict=True):
        spec = found.spec(rank=trial["number"] + 1, rate=1e-4 * (trial["number"] + 1), seed=seed)
        found.record(spec, (30 - trial["number"], 38))
        trial.update(key=spec.key, params=trial["params"] | {"data.seed": seed})
    text = (found.folder / "sweep.yaml").read_text()
    found.load(space=["lora.rank", "train.learning_rate", "data.seed"])
    (found.folder / "sweep.yaml").write_text(text)
    config = confirming(load(found.folder), seeds=1)
    assert "data.seed" not in config.paths()
    assert [spec.data.seed for spec in config.specs(next(iter(config.grid())))] == [10]


def test_confirmation_that_began_keeps_its_seeds_and_refuses_another_number_or_front(found):
    config = confirming(load(found.folder), seeds=3)
    folder = found.folder.with_name("quickstart-confirmed")
    folder.mkdir()
    (folder / "sweep.yaml").write_text(dump(config.model_dump(mode="json", exclude_unset=False)))
    spec = found.spec(rank=9, seed=40)  # a later trial of the search
    found.record(spec, (10, 10))
    found.trials.append({"number": 3, "key": spec.key, "baseline": found.base.key, "params": {"lora.rank": 9}})
    text = (found.folder / "sweep.yaml").read_text()
    found.load()
    (found.folder / "sweep.yaml").write_text(text)
    assert confirming(load(found.folder), seeds=3).data.seed == 1
    with pytest.raises(InputError, match="another number of seeds"):
        confirming(load(found.folder), seeds=5)


def test_damaged_confirmation_is_refused_in_one_line(found):
    folder = found.folder.with_name("quickstart-confirmed")
    folder.mkdir()
    (folder / "sweep.yaml").write_text("about: {confirms: quickstart}\nsearch: none\n")
    with pytest.raises(InputError, match="rename it") as caught:
        confirming(load(found.folder), seeds=3)
    assert len(str(caught.value).splitlines()) == 1


def test_space_of_seeds_alone_has_nothing_to_confirm(found):
    text = (found.folder / "sweep.yaml").read_text()
    for trial in found.trials:
        trial["params"] = {"train.seed": trial["number"]}
    found.load(space=["train.seed"])
    (found.folder / "sweep.yaml").write_text(text)
    with pytest.raises(InputError, match="its space has seeds alone"):
        confirming(load(found.folder), seeds=3)


def test_front_without_a_trial_is_refused_in_one_line(tmp_path):
    builder = Builder(tmp_path).baseline().add((18, 30))
    with pytest.raises(InputError, match="its front has no trial, so there is nothing to confirm"):
        confirming(builder.load(), seeds=3)


@pytest.mark.parametrize("text", ["", "- a list", "search: {"])
def test_config_that_cannot_be_read_is_refused_in_one_line(found, text):
    (found.folder / "sweep.yaml").write_text(text)
    with pytest.raises(InputError) as caught:
        confirming(load(found.folder), seeds=3)
    assert str(caught.value).startswith(str(found.folder))
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.slow
def test_confirmed_sweep_is_in_the_report_of_the_one_that_found_it(tmp_path, write, parts):
    # with a part of the network switched off, so that a derived point can be on the front
    parts["search"] |= {"constraints": [], "objectives": [{"metric": "learning.kl", "direction": "minimize"}]}
    parts["search"]["objectives"].append({"metric": "learning.gain", "direction": "maximize"})
    parts["derive"] = {"strength": [0.5]}
    ran = slimsweep("run", write(parts), "--storage", tmp_path / "runs")
    assert ran.returncode == 0, ran.stderr
    done = slimsweep("confirm", tmp_path / "runs/little", "--seeds", "2", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert {one["seeds"] for one in told["settings"]} == {2}
    assert {one["number"] for one in told["settings"]} >= set(load(tmp_path / "runs/little").front["number"])
    assert "Found and confirmed" in (tmp_path / "runs/little/report.html").read_text()
    again = slimsweep("confirm", tmp_path / "runs/little", "--seeds", "2")
    assert again.returncode == 0, again.stderr
    assert "are done" in again.stdout
