"""A record is there whole or not at all."""

import pandas as pd
import pytest

from trials.errors import InputError
from trials.ledger import storage
from trials.ledger.record import Ledger, Score, TrialRecord


@pytest.fixture
def record(spec) -> TrialRecord:
    return TrialRecord(key=spec.key, state="complete", spec=spec, scores={"math": Score(value=0.5, stderr=0.1, n=25)})


def test_written_record_is_read_back(tmp_path, record):
    ledger = Ledger(tmp_path)
    documents = pd.DataFrame({"role": ["math"], "task": ["gsm"], "doc_hash": ["h"], "score": [1.0]})
    ledger.write(record, documents)
    assert ledger.read(record.key) == record
    assert ledger.documents(record.key).equals(documents)
    assert list(ledger) == [record.key]
    assert ledger.read("0" * 16) is None


def test_truncated_record_is_one_line_and_stays_unchanged(tmp_path, record):
    ledger = Ledger(tmp_path)
    ledger.write(record)
    path = ledger.folder(record.key) / "record.json"
    half = path.read_text()[:200]
    path.write_text(half)
    with pytest.raises(InputError) as caught:
        ledger.read(record.key)
    assert str(caught.value).startswith(f"{path}: not a whole record")
    assert "\n" not in str(caught.value)
    assert path.read_text() == half


def test_record_under_another_key_is_refused(tmp_path, record):
    ledger = Ledger(tmp_path)
    ledger.write(record)
    (tmp_path / "ledger" / ("f" * 16)).mkdir()
    (ledger.folder("f" * 16) / "record.json").write_text(record.model_dump_json())
    with pytest.raises(InputError, match="holds the record of"):
        ledger.read("f" * 16)


def test_failed_record_is_not_complete(tmp_path, record):
    ledger = Ledger(tmp_path)
    ledger.write(record.model_copy(update={"state": "failed"}))
    assert ledger.complete(record.key) is None


def test_garbage_record_is_one_line(tmp_path, record):
    ledger = Ledger(tmp_path)
    ledger.write(record)
    (ledger.folder(record.key) / "record.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="not a whole record"):
        ledger.read(record.key)


def test_incomplete_record_is_set_aside(place, record):
    ledger = Ledger(place)
    path = ledger.folder(record.key) / "record.json"
    for half, name in (("{", "record.json.corrupt"), ("[", "record.json.corrupt.1")):
        storage.write_text(path, half)
        with pytest.raises(InputError, match="not a whole record"):
            ledger.read(record.key)
        assert ledger.set_aside(record.key) == path.with_name(name)
        assert storage.read_text(path.with_name(name)) == half
        assert ledger.read(record.key) is None
    ledger.write(record)
    assert ledger.read(record.key) == record


@pytest.mark.parametrize("role", ["", "a role", "1st"])
def test_record_with_a_role_that_is_no_word_is_damaged(tmp_path, record, role):
    ledger = Ledger(tmp_path)
    ledger.write(record)
    path = ledger.folder(record.key) / "record.json"
    path.write_text(path.read_text().replace('"math"', f'"{role}"', 1))
    with pytest.raises(InputError, match="a role is a plain word"):
        ledger.read(record.key)
