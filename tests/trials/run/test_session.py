"""A session keeps the last result of each kind, and only that."""

from trials.run.session import Session


def test_result_is_reused_for_the_same_identity_only(tmp_path, worker):
    session = Session(worker.session.ledger, worker.session.hub)
    made = []

    def rows(identity: str) -> str:
        return session.once("rows", identity, lambda: made.append(identity) or identity)

    assert [rows(identity) for identity in "aabba"] == list("aabba")
    assert made == ["a", "b", "a"]


def test_data_identity_changes_with_the_data_only(worker, spec):
    session = worker.session
    samples = spec.model_copy(update={"data": spec.data.model_copy(update={"seed": 1})})
    rank = spec.model_copy(update={"lora": spec.lora.model_copy(update={"rank": 2})})
    assert session.data_identity(spec) == session.data_identity(rank)
    assert session.data_identity(spec) != session.data_identity(samples)
