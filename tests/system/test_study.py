"""Two numbers of the study in docs/study, computed again from its documents with plain pandas."""

import tarfile
from pathlib import Path

import pandas as pd
import pytest

STUDY = Path(__file__).parents[2] / "docs" / "study"


@pytest.fixture(scope="module")
def records(tmp_path_factory) -> Path:
    """The unpacked records: study/trials.csv and ledger/KEY/documents.parquet."""
    folder = tmp_path_factory.mktemp("records")
    with tarfile.open(STUDY / "records.tar.xz") as packed:
        packed.extractall(folder, filter="data")
    return folder


@pytest.fixture(scope="module")
def trials(records) -> pd.DataFrame:
    found = pd.read_csv(records / "study" / "trials.csv")
    return found[found.state == "complete"]


def problems(records: Path, key: str) -> pd.DataFrame:
    """The mathematics that the report quotes: the half of the documents that the search did not see."""
    documents = pd.read_parquet(records / "ledger" / key / "documents.parquet")
    return documents[(documents.role == "math") & (documents.half == "report")].set_index("doc_hash").sort_index()


def test_drop_in_mathematics_is_the_base_s_right_answers_less_the_trial_s(records, trials):
    for trial in trials.to_dict("records"):
        base, tuned = problems(records, trial["baseline"]), problems(records, trial["key"])
        assert list(base.index) == list(tuned.index)
        lost = ((base.score == 1) & (tuned.score == 0)).sum()
        won = ((base.score == 0) & (tuned.score == 1)).sum()
        assert (lost - won) / len(base) == pytest.approx(trial["math.drop"], abs=1e-9)


def test_bits_of_the_solutions_are_those_of_all_their_bytes(records, trials):
    for trial in trials.to_dict("records"):
        base, tuned = problems(records, trial["baseline"]), problems(records, trial["key"])
        rise = tuned.bits.sum() / tuned.bytes.sum() - base.bits.sum() / base.bytes.sum()
        assert rise == pytest.approx(trial["math.gold_bpb_delta"], abs=1e-6)


def test_the_table_has_the_trials_of_the_records(records, trials):
    kept = {folder.name for folder in (records / "ledger").iterdir()}
    assert set(trials.key) | set(trials.baseline) == kept
    shown = pd.read_csv(STUDY / "front.csv")
    assert set(shown.key) <= set(trials.key)
