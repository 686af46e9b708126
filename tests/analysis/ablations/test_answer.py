"""Answers as data."""

from analysis.ablations.answer import Answer


def test_designed_ablation_has_no_results():
    designed = Answer(name="q", title="T", question="Q?", why="", design="", base="tiny")
    assert designed.sweep is None and designed.seeds == 0
    assert designed.verdicts == designed.effects == ()
