"""Known truths of a trial, on the real stack: what must be equal is equal to the bit, and what must differ does."""

import pandas as pd
import pytest

from tests.poison import nothing_to_learn
from trials.run.worker import Worker
from trials.spec import TrialSpec
from trials.training import trainer


def changed(spec: TrialSpec, **sections) -> TrialSpec:
    dumped = spec.model_dump()
    for name, values in sections.items():
        dumped[name] |= values
    return TrialSpec.model_validate(dumped)


@pytest.fixture(scope="module")
def whole(worker, module_spec):
    return worker.run(module_spec, keep=[16])


@pytest.fixture(scope="module")
def module_spec():
    from tests.factories.configs import CONFIG, deep

    spec = TrialSpec.model_validate({name: deep(CONFIG)[name] for name in TrialSpec.model_fields if name in CONFIG})
    return changed(spec, eval={**spec.model_dump()["eval"], "math": {"preset": "micro_gsm", "documents": 12}})


@pytest.fixture(scope="module")
def base(worker, module_spec):
    return worker.run(module_spec.baseline())


def outcomes(worker: Worker, record) -> pd.DataFrame:
    assert record.failure is None, record.failure
    return worker.session.ledger.documents(record.key).drop(
        columns=["question", "cluster"], errors="ignore"
    )  # the base alone has these


def test_strength_0_is_the_base_document_by_document(worker, module_spec, whole, base):
    nothing = worker.run(changed(module_spec, derive={"strength": 0.0}))
    pd.testing.assert_frame_equal(outcomes(worker, nothing), outcomes(worker, base), check_exact=True)
    assert nothing.parent == whole.key
    assert (nothing.scores, nothing.halves) == (base.scores, base.halves)
    assert all(part["kl"] == part["reverse_kl"] == 0 for part in nothing.learning.values())


def test_an_adapter_switched_off_wherever_it_is_is_the_base_document_by_document(worker, module_spec, base):
    nothing = worker.run(changed(module_spec, lora={"layers": "first-third"}, derive={"off": "first-third"}))
    pd.testing.assert_frame_equal(outcomes(worker, nothing), outcomes(worker, base), check_exact=True)
    assert nothing.parent == changed(module_spec, lora={"layers": "first-third"}).key
    assert all(part["kl"] == 0 for part in nothing.learning.values())


def test_an_adapter_without_its_queries_is_another_than_the_adapter_and_than_the_base(worker, module_spec, whole, base):
    part = worker.run(changed(module_spec, derive={"off": "q"}))
    assert part.parent == whole.key
    bits = [outcomes(worker, record)["bits"].tolist() for record in (part, whole, base)]
    assert bits[0] not in bits[1:]


def test_a_part_without_an_adapter_fails_in_one_line(worker, module_spec):
    record = worker.run(changed(module_spec, lora={"target_modules": ["up_proj"]}, derive={"off": "k"}))
    assert record.failure.message == "derive.off: the adapter has nothing in k; it is on up_proj"


def test_the_full_rank_is_the_adapter(worker, module_spec, whole):
    full = worker.run(changed(module_spec, derive={"rank": 4}))
    assert outcomes(worker, full)["score"].equals(outcomes(worker, whole)["score"])
    for source, part in whole.learning.items():
        assert full.learning[source] == pytest.approx(part, rel=1e-4)


def test_samples_0_is_the_baseline(worker, module_spec, base):
    nothing = changed(module_spec, data={"samples": 0})
    assert nothing.key == base.key
    assert worker.run(nothing) == base


def test_a_replay_of_0_is_no_replay(worker, module_spec, whole):
    none = changed(module_spec, data={"replay": {"source": "self", "share": 0.0}})
    assert none.key == whole.key
    assert changed(module_spec, data={"replay": {"source": "self", "share": 0.25}}).key != whole.key


def test_two_seeds_differ_and_one_repeats(module_spec, worker, another, whole):
    again = another().run(module_spec)
    assert (again.losses, again.scores, again.learning) == (whole.losses, whole.scores, whole.learning)
    for section, name in (("train", "seed"), ("data", "seed")):
        other = worker.run(changed(module_spec, **{section: {name: 1}}))
        assert other.losses != whole.losses


def test_what_was_trained_has_moved_from_the_base_and_learnt(whole, base):
    for source, part in whole.learning.items():
        assert part["kl"] > 0, source
        assert part["loss"] < part["base_loss"], source
    assert base.learning == {}


@pytest.mark.slow
def test_the_adapter_after_n_rows_is_what_a_training_of_n_rows_gives(worker, another, module_spec, whole):
    """Without a warm-up, whose length depends on the number of rows."""
    plain = changed(module_spec, train={"warmup": 0.0})
    shorter = worker.run(changed(plain, data={"samples": 16}))
    kept = worker.run(changed(plain, derive={"samples": 16}))  # its parent is run, and keeps a copy
    assert (worker.session.ledger.folder(kept.parent) / "adapter-16").is_dir()
    assert "train" not in kept.seconds
    later = another()
    later.run(plain)  # keeps none
    made = later.run(changed(plain, derive={"samples": 16}))
    assert "train" in made.seconds
    for record in (kept, made):
        assert (record.scores, record.learning) == (shorter.scores, shorter.learning)


def test_what_is_derived_from_a_training_that_failed_fails_as_it_did(another, module_spec, monkeypatch):
    hopeless = changed(module_spec, train={"learning_rate": 1000.0}, derive={"strength": 0.5})
    monkeypatch.setattr(trainer, "collate", nothing_to_learn(trainer.collate))
    worker = another()
    record = worker.run(hopeless)
    assert record.failure.kind == "NonFiniteLoss"
    assert record.failure.message.startswith(f"its training, {hopeless.parent.key}, failed: ")
    assert worker.session.ledger.read(hopeless.parent.key).failure.kind == "NonFiniteLoss"


def test_an_adapter_that_is_gone_is_one_line(another, module_spec):
    worker = another()
    parent = worker.run(module_spec)
    from trials.ledger import storage

    storage.remove(worker.session.ledger.folder(parent.key) / "adapter")
    record = worker.run(changed(module_spec, derive={"strength": 0.5}))
    assert record.failure.kind == "InputError"
    assert record.failure.message.endswith("is gone; move its record.json away, and it is trained again")
