"""Ablations are listed with their cost, and answered from the sweeps in the storage."""

from orchestrator.ablations import run
from orchestrator.ablations.design import Ablations
from orchestrator.config.load import resolved
from tests.factories.worlds import Model, planned
from tests.factories.worlds import run as write_records

ABLATIONS = Ablations()


def test_single_base_skips_comparisons():
    names = [one[0].ablation.name for one in run.each(ABLATIONS, run.ALL, "instruct", "full")]
    assert "q1" in names and "n3" not in names


def test_distinct_trials_are_fewer_than_all():
    trials, distinct = run.shared(ABLATIONS, "micro", "small")
    assert 0 < distinct < trials


def test_only_begun_ablations_are_answered(tmp_path):
    one = planned("n1", seeds=1)
    assert run.answers([one], str(tmp_path)) == []
    write_records(one, lambda spec: Model(), tmp_path, documents=40)
    (answer,) = run.answers([one], str(tmp_path))
    lines = []
    run.say([answer], lines.append)
    assert answer.title in lines[0] and len(lines) == 1 + 2 * len(answer.verdicts)
    assert [line.strip() for line in lines[1::2]] == [f"{one.answer.upper()}: {one.question}" for one in answer.verdicts]
    assert run.as_dict([answer])[0]["name"] == "n1"


def test_sweep_on_another_base_answers_nothing(tmp_path):
    one = planned("n1", seeds=1)
    write_records(one, lambda spec: Model(), tmp_path, documents=40)
    written = tmp_path / one.config.name / "sweep.yaml"
    written.write_text("base: {model: org/micro}")
    assert run.answers([one], str(tmp_path)) == []
    written.write_text(resolved(one.config))
    assert len(run.answers([one], str(tmp_path))) == 1
    written.write_text("- damaged")
    assert len(run.answers([one], str(tmp_path))) == 1


def test_page_is_named_after_the_whole_base(tmp_path, monkeypatch):
    monkeypatch.setattr(run, "each", lambda *arguments: [])
    _, files = run.write(ABLATIONS, [], str(tmp_path), "org-b/model-1B", "small")
    assert files[0] == tmp_path / "ablations-org-b--model-1B-small" / "index.html"
