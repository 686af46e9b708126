"""The training phases: a checkpoint carries the report of earlier attempts."""

import torch

from trials.ledger.checkpoint import CheckpointStore
from trials.ledger.record import Halving, TrialRecord
from trials.mix import Drawn
from trials.run.training_phase import Progress, _count
from trials.training import trainer


def test_record_has_the_unusual_rows_with_the_first_place(spec):
    record, counts = TrialRecord(key=spec.key, state="complete", spec=spec), Drawn(rows=9, format="")
    for row in (3, 5):
        counts.remark("an empty answer", f"rows.jsonl: row {row}")
    _count(record, {"mine": counts})
    again = TrialRecord.model_validate_json(record.model_dump_json())
    assert again.unusual == {"mine": {"an empty answer": (2, "rows.jsonl: row 3")}}


def progress(spec, folder) -> Progress:
    record = TrialRecord(key=spec.key, state="complete", spec=spec)
    return Progress(record, CheckpointStore(folder / "ledger" / spec.key / "partial").bound(key=spec.key))


def test_resumed_record_takes_over_the_report_of_earlier_attempts(spec, tmp_path):
    first = progress(spec, tmp_path)
    first.record.out_of_memory.append(Halving(phase="train", rows=4))
    first.record.resumed.append(1)
    first.save(trainer.State(3, 4, {"weight": torch.ones(2)}, losses=[(3, 1.5)]))
    second = progress(spec, tmp_path)
    state = second.resume()
    assert (state.step, state.micro_batch_size, state.losses) == (3, 4, [(3, 1.5)])
    assert second.record.out_of_memory == [Halving(phase="train", rows=4)]
    assert second.record.resumed == [1, 3]


def test_training_without_checkpoint_starts_at_the_beginning(spec, tmp_path):
    fresh = progress(spec, tmp_path)
    assert fresh.newest() is None
    assert fresh.resume() is None
    assert fresh.record.resumed == []
