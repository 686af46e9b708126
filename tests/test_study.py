"""Numbers of the published study, computed again from its documents with pandas alone."""

from pathlib import Path

import pandas as pd
import pytest

STUDY = Path(__file__).parents[1] / "docs" / "study"
FRONT = pd.read_csv(STUDY / "study" / "front.csv")
TRIALS = pd.read_csv(STUDY / "study" / "trials.csv").set_index("key")


def report_half(key: str, role: str) -> pd.DataFrame:
    documents = pd.read_parquet(STUDY / "ledger" / key / "documents.parquet")
    return documents[(documents["role"] == role) & (documents["half"] == "report")].set_index("doc_id").sort_index()


@pytest.mark.parametrize("point", FRONT.to_dict("records"), ids=lambda point: f"#{point['number']}")
def test_drop_in_mathematics_is_the_share_of_documents_lost_minus_won(point):
    before, after = (report_half(key, "math")["score"] for key in (TRIALS["baseline"][point["key"]], point["key"]))
    assert (before.index == after.index).all() and len(before) > 100
    lost, won = (before > after).mean(), (after > before).mean()
    assert lost - won == pytest.approx(point["math.drop"], abs=1e-9)


@pytest.mark.parametrize("point", FRONT.to_dict("records"), ids=lambda point: f"#{point['number']}")
def test_rise_in_the_solutions_bits_is_that_of_bits_per_byte_over_all_solutions(point):
    before, after = (report_half(key, "math") for key in (TRIALS["baseline"][point["key"]], point["key"]))
    rise = after["bits"].sum() / after["bytes"].sum() - before["bits"].sum() / before["bytes"].sum()
    assert rise == pytest.approx(point["math.gold_bpb_delta"], abs=1e-6)
