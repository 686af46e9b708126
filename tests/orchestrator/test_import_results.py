"""Folders of lm-eval become a sweep that the other commands read; what cannot be paired writes nothing."""

import pytest

from analysis.explore.compare import compare
from analysis.explore.gate import gate
from analysis.results.load import load
from analysis.results.manifest import Manifest
from orchestrator import import_results as import_results_module
from orchestrator.import_results import Request, import_results, sweep_name
from tests.factories.configs import CONFIG, deep
from tests.factories.lm_eval_folder import LATER, base_and_tunes, shares, write
from tests.factories.sweeps import Builder
from trials.errors import InputError
from trials.ledger.lease import acquire

RIGHT = {"gsm": shares(49), "swag": shares(40)}


@pytest.fixture
def run(tmp_path):
    """Imports `out` as the sweep `there`; returns the notes."""

    def imported(**request):
        said = []
        import_results(tmp_path / "out", tmp_path / "runs", Request("there", **request), said.append)
        return said

    base_and_tunes(tmp_path / "out")
    return imported


def refused(run, **request):
    with pytest.raises(InputError) as caught:
        run(**request)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_imported_sweep_has_paired_metrics_of_the_report_half(run, tmp_path):
    assert run() == []
    sweep = load(tmp_path / "runs" / "there")
    trials = sweep.trials.set_index("model")
    assert trials["state"].tolist() == ["complete", "complete"]
    assert trials["paired"].all()
    assert sweep.half == "report"
    base = sweep.baselines.iloc[0]
    assert trials.loc["greedy", "gsm.gain"] == pytest.approx(trials.loc["greedy", "gsm.value"] - base["gsm.value"])
    assert set(sweep.front["model"]) == {"careful", "greedy"}
    assert compare(sweep, sweep).warnings == ()


def test_objectives_constraints_roles_and_documents_can_be_named(run, tmp_path):
    aims = ["minimize math.forgetting", "choices.gain"]
    run(roles=["math=gsm", "choices=swag:acc_norm"], objectives=aims, constraints=["math.drop <= 0.1"], documents="all")
    sweep = load(tmp_path / "runs" / "there")
    assert [(one.metric, one.direction) for one in sweep.objectives] == [
        ("math.forgetting", "minimize"),
        ("choices.gain", "maximize"),
    ]
    assert sweep.half is None
    assert sweep.front["model"].tolist() == ["careful"]


def test_same_import_again_changes_nothing(run, tmp_path):
    def files():
        return {path: path.read_bytes() for path in (tmp_path / "runs").rglob("*") if path.is_file()}

    run()
    before = files()
    assert run() == []
    assert files() == before


def test_more_tunes_are_added_with_or_without_the_base(run, tmp_path):
    run()
    write(tmp_path / "out", {"pretrained": "org/base", "peft": "me/third"}, RIGHT)
    run()
    write(tmp_path / "later", {"pretrained": "org/base", "peft": "you/fourth"}, RIGHT)
    import_results(tmp_path / "later", tmp_path / "runs", Request("there"), print)
    trials = load(tmp_path / "runs" / "there").trials
    assert trials["model"].tolist() == ["careful", "greedy", "third", "fourth"]
    assert trials["paired"].all()


def test_new_results_of_a_model_replace_its_old_ones(run, tmp_path):
    run()
    write(tmp_path / "out", {"pretrained": "org/base", "peft": "me/greedy"}, RIGHT, LATER)
    (note,) = run()
    assert "trial #1: new results of me/greedy replace lmeval-" in note
    trials = load(tmp_path / "runs" / "there").trials
    assert trials["model"].tolist() == ["careful", "greedy"]


def test_base_can_be_named_by_its_name_its_folder_or_an_end(run, tmp_path):
    for name in ("org/base", "org__base", "base"):
        run(base=name)
    assert len(Manifest.read(tmp_path / "runs" / "there").trials) == 2
    assert "--base nobody is none of its models; they are me/careful, me/greedy, org/base" in refused(run, base="nobody")


def test_ambiguous_base_is_one_line_with_the_candidates(run, tmp_path):
    write(tmp_path / "out", {"pretrained": "me/merged"}, RIGHT)
    assert "which model is the base? --base names it: me/careful, me/greedy, me/merged, org/base" in refused(run)
    assert not (tmp_path / "runs").exists()
    run(base="org/base")
    run()  # the base of an earlier import is known


def test_documents_that_do_not_pair_write_nothing(run, tmp_path):
    write(tmp_path / "out", {"pretrained": "org/base", "peft": "me/greedy"}, {"gsm": shares(3, 50), "swag": shares(40)}, LATER)
    assert "document 50 of gsm is missing" in refused(run)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        ({"objectives": ["gsm.gian"]}, "did you mean gsm.gain?"),
        ({"objectives": ["maths.gain"]}, "no benchmark has the role 'maths'"),
        ({"objectives": ["gsm.gain swag.gain"]}, '--objective: expected "maximize ROLE.KIND"'),
        ({"constraints": ["gsm.drop < 1"]}, "a bound may be reached"),
        ({"roles": ["a=b"]}, "org/base has no task 'b'"),
    ],
)
def test_unusable_request_is_one_line(request_, expected, run, tmp_path):
    assert expected in refused(run, **request_)
    assert not (tmp_path / "runs").exists()


def test_many_roles_need_objectives(run, tmp_path):
    roles = [f"r{i}=gsm" for i in range(5)]
    assert '5 roles (r0, r1, r2, r3, r4): name the objectives that matter, as --objective "maximize r0.gain"' in refused(
        run, roles=roles
    )
    run(roles=roles, objectives=["r0.gain"])


def test_other_roles_than_those_of_the_earlier_import_are_refused(run):
    run()
    assert "--role differs from the roles of the earlier import (gsm, swag); leave it out" in refused(run, roles=["math=gsm"])


def test_other_results_of_the_base_are_refused(run, tmp_path):
    run()
    write(tmp_path / "out", {"pretrained": "org/base"}, RIGHT, LATER)
    assert "was imported with another base, other roles or other results of the base" in refused(run)


@pytest.mark.parametrize("folder", ["out", "later"])
@pytest.mark.parametrize("roles", [(), ("choices=swag", "math=gsm")])
def test_named_roles_are_kept_by_later_imports_with_the_same_roles_or_none(run, tmp_path, folder, roles):
    run(roles=["math=gsm", "choices=swag"])
    write(tmp_path / folder, {"pretrained": "org/base", "peft": "you/fourth"}, RIGHT)
    import_results(tmp_path / folder, tmp_path / "runs", Request("there", roles=roles), print)
    sweep = load(tmp_path / "runs" / "there")
    assert sweep.trials["model"].tolist() == ["careful", "greedy", "fourth"]
    assert sweep.trials["math.gain"].notna().all()


def test_gain_above_0_is_better_where_lower_values_are(tmp_path):
    write(tmp_path / "out", {"pretrained": "org/base"}, {"notes": shares(30), "sums": shares(40)})
    write(tmp_path / "out", {"pretrained": "org/base", "peft": "me/worse"}, {"notes": shares(10), "sums": shares(20)})
    write(tmp_path / "out", {"pretrained": "org/base", "peft": "me/better"}, {"notes": shares(50), "sums": shares(60)})
    import_results(tmp_path / "out", tmp_path / "runs", Request("there", documents="all"), print)
    sweep = load(tmp_path / "runs" / "there")
    trials, base = sweep.trials.set_index("model"), sweep.baselines.iloc[0]
    assert sweep.front["model"].tolist() == ["better"]
    assert base["sums.value"] == pytest.approx(20 * 0.5 / 60)
    assert trials.loc["worse", "sums.forgetting"] == pytest.approx(1.0)  # the error has doubled
    perplexity = trials["notes.value"]
    assert perplexity["better"] < base["notes.value"] < perplexity["worse"]
    assert trials.loc["better", "notes.gain"] == pytest.approx(base["notes.value"] - perplexity["better"])
    decisions = {name: gate(sweep, ["notes.forgetting <= 0.05", "sums.gain >= 0"], name).decision for name in trials.index}
    assert decisions == {"worse": "broken", "better": "holds"}


# ---------------------------------------------------------------------- lost and damaged records


def keys(tmp_path):
    manifest = Manifest.read(tmp_path / "runs" / "there")
    return [*manifest.baselines, *(trial.key for trial in manifest.trials)]


def damage(tmp_path, number, name="record.json", content=b"{"):
    """Damages or removes a file of the base (0) or of a tune; returns it."""
    path = tmp_path / "runs" / "ledger" / keys(tmp_path)[number] / name
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)
    return path


@pytest.mark.parametrize("content", [None, b"{"], ids=["lost", "damaged"])
@pytest.mark.parametrize("name", ["record.json", "documents.parquet"])
@pytest.mark.parametrize("number", [0, 1, 2])
def test_lost_and_damaged_records_are_imported_again_under_their_numbers(run, tmp_path, number, name, content):
    run()
    before, path = keys(tmp_path), damage(tmp_path, number, name, content)
    whole = path.with_name(f"{name}.corrupt")
    notes = run()
    assert keys(tmp_path) == before
    assert load(tmp_path / "runs" / "there").trials["paired"].tolist() == [True, True]
    if (name, content) == ("record.json", b"{"):
        assert notes == [f"note: a damaged record was set aside: {whole}"]
        assert whole.read_bytes() == b"{"
    assert run() == []


def test_all_records_lost_are_imported_again(run, tmp_path):
    run()
    before = keys(tmp_path)
    for number in range(3):
        damage(tmp_path, number, content=None)
    run()
    assert keys(tmp_path) == before


def test_new_results_of_a_model_whose_record_is_lost_keep_its_number(run, tmp_path):
    run()
    damage(tmp_path, 2, content=None)
    write(tmp_path / "later", {"pretrained": "org/base", "peft": "me/greedy"}, RIGHT)
    import_results(tmp_path / "later", tmp_path / "runs", Request("there"), print)
    assert load(tmp_path / "runs" / "there").trials["model"].tolist() == ["careful", "greedy"]


def test_lost_record_keeps_its_label(run, tmp_path):
    run()
    damage(tmp_path, 2, content=None)
    write(tmp_path / "later", {"pretrained": "org/base", "peft": "me/third"}, RIGHT)
    import_results(tmp_path / "later", tmp_path / "runs", Request("there"), print)
    trials = Manifest.read(tmp_path / "runs" / "there").trials
    assert [trial.params["model"] for trial in trials] == ["careful", "greedy", "third"]


def test_lost_base_that_the_folder_lacks_is_one_line(run, tmp_path):
    run()
    damage(tmp_path, 0, content=None)
    write(tmp_path / "later", {"pretrained": "org/base", "peft": "me/third"}, RIGHT)
    with pytest.raises(InputError, match="the record of the base is lost; import a folder that holds the results of org/base"):
        import_results(tmp_path / "later", tmp_path / "runs", Request("there"), print)


# ---------------------------------------------------------------------- two imports at once


def test_imports_into_one_folder_at_once_keep_the_tunes_of_both(run, tmp_path, monkeypatch):
    """The second import begins when the first has read everything, and before that has written anything."""
    run()
    for name in ("third", "fourth"):
        write(tmp_path / name, {"pretrained": "org/base", "peft": f"me/{name}"}, RIGHT)
    usual = import_results_module.acquire

    def second_first(folder):
        monkeypatch.setattr(import_results_module, "acquire", usual)
        import_results(tmp_path / "fourth", tmp_path / "runs", Request("there"), print)
        return usual(folder)

    monkeypatch.setattr(import_results_module, "acquire", second_first)
    import_results(tmp_path / "third", tmp_path / "runs", Request("there"), print)
    assert load(tmp_path / "runs" / "there").trials["model"].tolist() == ["careful", "greedy", "fourth", "third"]


def test_import_waits_for_the_lease_of_another(run, tmp_path, monkeypatch):
    other = acquire(tmp_path / "runs" / "there" / "importing")
    waited = []

    def wait(seconds):
        waited.append((tmp_path / "runs" / "there" / "manifest.json").exists())
        other.release()

    monkeypatch.setattr(import_results_module.time, "sleep", wait)
    run()
    assert waited == [False]


def test_folder_of_a_trained_sweep_is_refused(run, tmp_path):
    builder = Builder(tmp_path / "runs")
    builder.baseline().add((26, 37)).load()
    with pytest.raises(InputError, match="holds a sweep of this program; give another --name"):
        import_results(tmp_path / "out", tmp_path / "runs", Request("quickstart"), print)
    assert Manifest.read(builder.folder).trials[0].params == {"lora.rank": 1, "train.learning_rate": 1e-4}


def test_run_refuses_the_folder_of_an_import(run, tmp_path, write, command):
    run()
    path = write(deep(CONFIG) | {"name": "there", "storage": str(tmp_path / "runs")})
    done = command("run", path)
    assert done.returncode == 2
    assert "holds results that were imported; give this sweep another `name`" in done.stderr


def test_base_alone_is_refused(tmp_path):
    write(tmp_path / "out", {"pretrained": "org/base"}, RIGHT)
    for base in (None, "org/base"):
        with pytest.raises(InputError, match="holds org/base alone; a base and a tune of it are needed"):
            import_results(tmp_path / "out", tmp_path / "runs", Request("there", base=base), print)


def test_names_of_sweeps_are_names_of_folders(tmp_path):
    assert sweep_name(tmp_path / "my out (2)") == "my-out-2"
    assert sweep_name(tmp_path / "ledger") == "ledger-imported"
    with pytest.raises(InputError, match="--name: up to 200 letters"):
        import_results(tmp_path, tmp_path, Request("../x"), print)
