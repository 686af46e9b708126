"""Answers as data."""

import dataclasses

from analysis.ablations.answer import Answer, Experiment


def test_answer_has_every_field_of_its_experiment():
    designed = {field.name for field in dataclasses.fields(Experiment)}
    answered = {field.name for field in dataclasses.fields(Answer)}
    assert answered - designed == {"sweep", "verdicts", "effects", "seeds"} and designed < answered
