"""A trial that is looked at before its end and goes on ends as one that was never stopped."""

import pytest

from trials.evaluation.racing import Pause, Paused, Race, unjudged
from trials.training import trainer


@pytest.fixture
def pausing():
    """Early stopping that pauses a trial; `seen` gets the shares of rows and documents of each look."""
    seen = []

    def at(rows, documents, decides=True):
        def look(record, rows, share):
            seen.append((rows, share))
            return {"rows": rows, "documents": share} if decides else None

        return lambda spec: Race(["math"], "search", unjudged, Pause(rows, documents, look))

    at.seen = seen
    return at


def assert_alike(one, other) -> None:
    """The training is the same to the bit. Documents were answered in other batches, which may round a likelihood otherwise."""
    for name in ("losses", "similarity", "learning", "scores"):
        assert getattr(one, name) == getattr(other, name), name
    halves = [
        {
            (role, half, name): score.value
            for role, of in record.halves.items()
            for half, some in of.items()
            for name, score in some.items()
        }
        for record in (one, other)
    ]
    assert halves[0] == pytest.approx(halves[1], rel=1e-3, nan_ok=True)
    for role, outcomes in one.outcomes.items():
        assert outcomes.documents == other.outcomes[role].documents
        assert outcomes.columns["score"] == other.outcomes[role].columns["score"]
        for column in outcomes.columns:
            expected = other.outcomes[role].column(column)
            assert outcomes.column(column) == pytest.approx(expected, rel=2e-3, nan_ok=True), column


def test_a_trial_that_was_paused_ends_as_one_that_was_not(another, little, undisturbed, pausing):
    worker = another()
    for rows, documents in ((0.5, 0.25), (1.0, 0.25), (1.0, 1.0)):
        with pytest.raises(Paused) as paused:
            worker.run(little, early_stopping=pausing(rows, documents))
        assert paused.value.look == {"rows": rows, "documents": documents}
        assert worker.session.ledger.read(little.key) is None
    record = worker.run(little)
    assert record.failure is None
    assert record.resumed[0] == 2, "half of the training's four steps were not repeated"
    assert_alike(record, undisturbed)


def test_a_look_that_decides_nothing_is_passed(another, little, undisturbed, pausing):
    record = another().run(little, early_stopping=pausing(0.5, 0.25, decides=False))
    assert record.failure is None
    assert_alike(record, undisturbed)
    assert pausing.seen == [(rows, share) for rows in (0.5, 1.0) for share in (0.25, 0.5, 1.0)]


def test_a_training_of_one_step_is_not_cut(another, little, pausing):
    with pytest.raises(Paused):
        another().run(little, early_stopping=pausing(0.1, 0.25))
    assert pausing.seen == [(1.0, 0.25)]


def test_a_look_after_the_training_has_gone_further_changes_nothing(another, little, undisturbed, pausing):
    """The search wants a look at half of the rows of a trial whose training an earlier attempt has ended."""
    worker = another()
    with pytest.raises(Paused):
        worker.run(little, early_stopping=pausing(1.0, 0.25))
    with pytest.raises(Paused):
        worker.run(little, early_stopping=pausing(0.5, 0.25))
    assert pausing.seen == [(1.0, 0.25)] * 2, "no look claims to be after half of the rows"
    record = worker.run(little)
    assert record.failure is None
    assert_alike(record, undisturbed)


def test_a_look_after_an_interruption_beyond_its_cut_leaves_the_training_s_state(
    another, little, undisturbed, pausing, monkeypatch
):
    worker = another(trainer.Pace(seconds=0.0, share=float("inf")))
    update = trainer.check_finite

    def interrupted(step, loss, norm):
        update(step, loss, norm)
        if step == 4:
            raise KeyboardInterrupt

    monkeypatch.setattr(trainer, "check_finite", interrupted)
    with pytest.raises(KeyboardInterrupt):
        worker.run(little)
    monkeypatch.undo()
    with pytest.raises(Paused):
        worker.run(little, early_stopping=pausing(0.5, 0.25))
    assert pausing.seen == [(1.0, 0.25)]
    record = worker.run(little)
    assert record.resumed[0] == 3
    assert_alike(record, undisturbed)
