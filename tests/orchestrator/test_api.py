"""Python programs have the commands' config, plan, run and results, with the same errors as exceptions."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

import slimsweep
from analysis.formatting import labels
from orchestrator import api
from orchestrator.sweep.controller import SweepController
from orchestrator.sweep.earlier_run import pinned
from orchestrator.sweep.events import Event
from tests.factories.sweep_state import run_out
from tests.factories.sweeps import Builder
from trials.errors import InputError
from trials.ledger.outcomes import Scale

ROOT = Path(__file__).parents[2]


def test_everything_that_is_offered_exists():
    for name in slimsweep.__all__:
        assert getattr(slimsweep, name)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = slimsweep.nothing


def test_file_and_dictionary_give_the_same_config(parts, write):
    overrides = {"lora.rank": np.int64(16), "data.mix": {"micro/alpaca": 1.0}, "name": "other"}
    changed = api.config(write(parts), ["lora.rank=16", 'data.mix={"micro/alpaca": 1.0}', "name=other"])
    assert api.config(parts, overrides) == changed
    assert (changed.lora.rank, changed.name) == (16, "other")
    assert api.config(str(write(parts))) == api.config(write(parts)) == api.config(parts)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: p["lora"].update(rnak=4), "config: unknown key 'lora.rnak'; did you mean 'rank'?"),
        (lambda p: p["lora"].update(rank=object()), "config: object <object object"),
        (lambda p: p.pop("base"), "config: missing key"),
        (lambda p: p["lora"].update(itself=p), "config: Circular reference detected"),
        (lambda p: p.clear(), "config: the file is empty; expected name"),
    ],
)
def test_bad_dictionary_is_one_line(parts, change, message):
    change(parts)
    with pytest.raises(InputError) as caught:
        api.config(parts)
    assert str(caught.value).startswith(message)
    assert len(str(caught.value).splitlines()) == 1


def test_bad_file_and_bad_folder_raise_the_commands_line(tmp_path):
    with pytest.raises(InputError, match=r"nowhere\.yaml: no such file$"):
        api.config(tmp_path / "nowhere.yaml")
    with pytest.raises(InputError, match="there is no such folder"):
        api.results(tmp_path / "none")


def test_unreadable_place_is_a_bad_input(done, tmp_path, monkeypatch):
    long = tmp_path / ("x" * 300)
    for call in (lambda: api.config(long), lambda: api.plan(done, long), lambda: api.results(str(long))):
        with pytest.raises(InputError, match="File name too long") as caught:
            call()
        assert len(str(caught.value).splitlines()) == 1
    monkeypatch.setattr("orchestrator.run.drive", lambda *arguments: (_ for _ in ()).throw(OSError(28, "No space left", "/x")))
    with pytest.raises(InputError, match=r"^/x: No space left$"):
        api.run(done, tmp_path)


def test_what_a_users_function_raises_is_not_changed(done, tmp_path, monkeypatch):
    def broken(event):
        raise FileNotFoundError("mine")

    monkeypatch.setattr("orchestrator.run.drive", lambda *arguments: arguments[-1][-1](Event("trial_finished", "s")) or 0)
    with pytest.raises(FileNotFoundError, match="mine"):
        api.run(done, tmp_path, on_trial=broken)


def test_argument_of_another_type_is_a_bad_input(done):
    bad = {
        "config: a file's path or a dictionary, not list ['a']": lambda: api.config(["a"]),
        "config: overrides are values by dotted path or texts PATH=VALUE, not str": lambda: api.config({}, "lora.rank=4"),
        "config: overrides are values by dotted path or texts": lambda: api.config({}, {3: 4}),
        "config: slimsweep.config(...) makes one, but got str 'file.yaml'": lambda: api.run("file.yaml"),
        "config: slimsweep.config(...) makes one": lambda: api.plan("file.yaml"),
        "storage: a folder's path or URL, not int 3": lambda: api.results(3),
        "on_trial: a function of an event, not str 'print'": lambda: api.run(done, on_trial="print"),
    }
    for message, call in bad.items():
        with pytest.raises(InputError, match=re.escape(message)):
            call()


def test_problem_of_an_override_is_named_as_it_was_given(parts):
    with pytest.raises(InputError, match=r"^overrides: search.trails=2: unknown key 'search.trails'; did you mean 'trials'"):
        api.config(parts, {"search.trails": 2})
    with pytest.raises(InputError, match=r"^--set search.trails=2: unknown key"):
        api.config(parts, ["search.trails=2"])


def test_plan_is_that_of_the_command_and_shows_itself(parts, write, tmp_path, command):
    config = api.config(parts)
    found = api.plan(config, tmp_path / "runs")
    assert found.as_dict()["trials"] == 2
    printed = json.loads(command("plan", write(parts), "--storage", tmp_path / "runs", "--json").stdout)
    own = json.loads(json.dumps(found.as_dict()))
    counted = [
        name for name in own if name not in ("disk_free", "phases", "notes") and "hours" not in name and "seconds" not in name
    ]
    assert [printed[name] for name in counted] == [own[name] for name in counted]  # the others measure this machine's speed
    assert "commonsense.gain" in found._repr_html_()


@pytest.fixture
def done(parts, tmp_path):
    """The config of a sweep whose trials are done: running it starts no Ray."""
    config = api.config(parts)
    sweep = SweepController.open(pinned(config, tmp_path), tmp_path)
    with sweep.going():
        run_out(sweep)
    return config


def test_run_returns_the_results_and_prints_unless_it_is_quiet(done, tmp_path, capsys):
    results = api.run(done, tmp_path)
    assert sorted(results.trials["number"]) == [0, 1]
    assert (tmp_path / "little" / "report.html").exists()
    assert "all 2 trials are done" in capsys.readouterr().out
    api.run(done, tmp_path, quiet=True)
    assert capsys.readouterr().out == ""


def test_callback_cannot_be_called_from_a_cluster(done, tmp_path):
    with pytest.raises(InputError, match="on_trial: the driver runs on the cluster"):
        api.run(done, tmp_path, "ray://127.0.0.1:1", on_trial=print)


@pytest.mark.slow
def test_sweep_runs_here_after_an_address_did_not_answer(parts, tmp_path):
    config = api.config(parts, {"resources.max_concurrent": 1})
    with pytest.raises(InputError, match="no Ray cluster answers there"):
        api.run(config, tmp_path, "ray://127.0.0.1:1", quiet=True)
    assert len(api.run(config, tmp_path, quiet=True).sweep.complete_records) == 3


@pytest.mark.slow
def test_callback_that_raises_stops_the_sweep_and_the_same_call_resumes_it(parts, tmp_path):
    def broken(event):
        raise ZeroDivisionError(event.event)

    config = api.config(parts, {"resources.max_concurrent": 1})
    with pytest.raises(ZeroDivisionError, match="trial_finished"):
        api.run(config, tmp_path, on_trial=broken, quiet=True)
    assert len(api.results(tmp_path / "little").sweep.complete_records) < 3
    seen = []
    results = api.run(config, tmp_path, on_trial=seen.append, quiet=True)
    assert len(results.sweep.complete_records) == 3
    assert 0 < len(seen) < 3
    assert all(event.record.state == "complete" for event in seen)


def test_results_are_frames_and_a_figure(tmp_path):
    built = Builder(tmp_path).baseline().add((26, 37)).replicate((24, 40), (25, 39))
    built.load()
    results = api.results(built.folder)
    assert list(results.front["number"]) == list(results.sweep.front["number"])
    documents = results.documents
    assert len(documents) == 4 * 2 * 50  # a baseline and three runs, two roles, fifty documents
    assert documents[documents["key"] == built.base.key]["number"].isna().all()
    replicates = documents[documents["number"] == 1].groupby("replicate")["score"].sum()
    assert replicates.to_dict() == {0: 64.0, 1: 64.0}
    assert results.plot().get_size_inches()[0] > 5
    assert results.mix.empty  # one mix
    assert "front of quickstart" in results._repr_html_()
    assert "quickstart" in repr(results)
    assert results.report().name == "report.html"


def test_results_keep_their_units_whatever_was_read_since(tmp_path):
    """Another sweep's role of the same name may be a perplexity."""
    built = Builder(tmp_path / "a").baseline().add((26, 37)).add((24, 40))
    built.load()
    found = api.results(built.folder)
    other = Builder(tmp_path / "b")
    scales = {"commonsense": Scale(form="exp", higher_is_better=False, share=False)}
    other.record(other.base, (20, 40), scales=scales)
    other.add((26, 37), scales=scales).load()
    assert "+12.0 ± 4.6 points" in repr(found)
    labels.learn_scales(api.results(other.folder).sweep.records.values())
    assert "points" in found._repr_html_() and "commonsense gain (points)" in found.report().read_text().replace("\n", " ")


def test_results_of_a_sweep_that_has_just_begun_are_empty(tmp_path):
    built = Builder(tmp_path).add()
    built.load()
    results = api.results(built.folder)
    assert (len(results.documents), len(results.front), len(results.trials)) == (0, 0, 1)
    assert "front of quickstart: empty. The only trial has not finished yet." in results._repr_html_()


@pytest.mark.slow
def test_example_of_the_docs_runs(tmp_path, monkeypatch, capsys):
    (example,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "python.md").read_text(), re.DOTALL)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "quickstart.yaml").write_text((ROOT / "configs" / "quickstart.yaml").read_text())
    names = {}
    exec(example, names)
    assert len(names["results"].trials) == 2
    assert (tmp_path / "front.png").stat().st_size > 10_000
    assert "0 {" in capsys.readouterr().out
