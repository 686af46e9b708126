import pandas as pd
import pytest

import analysis
from analysis.export.files import export
from analysis.report.build import notices, write_report
from analysis.results.load import load
from tests.factories.sweeps import SITUATIONS, Builder, oom
from trials.errors import InputError
from trials.evaluation import aggregate
from trials.ledger.record import Ledger, TrialRecord
from trials.ledger.storage import read_bytes, root


def test_each_record_is_read_once(usual, monkeypatch):
    usual.trials += [trial | {"number": trial["number"] + 6} for trial in usual.trials]
    read, counts = Ledger.read, {}

    def counted(ledger, key):
        counts[key] = counts.get(key, 0) + 1
        return read(ledger, key)

    monkeypatch.setattr(Ledger, "read", counted)
    sweep = usual.load()
    assert len(sweep.trials) == 12
    assert set(counts.values()) == {1}
    assert len(counts) == 7


def test_hypervolume_is_measured_from_baseline_and_constraint(usual):
    sweep = usual.load()
    assert sweep.reference == (0.0, 0.1)
    assert sweep.hypervolume == pytest.approx(4 / 50 * 0.1 + 2 / 50 * (0.1 - 3 / 40), rel=0.5)


def test_draws_know_all_documents_and_values_those_of_the_report_half(usual):
    for key in [trial["key"] for trial in usual.trials[:4]] + [usual.base.key]:
        record = usual.ledger.read(key)
        frame = usual.ledger.documents(key).assign(half=["search", "report"] * 50)
        for role, rows in frame.groupby("role"):
            record.halves[role] = aggregate.halves(rows)
        usual.ledger.write(record, frame)
    whole, half = usual.load(constraints=[]), usual.load(documents="half", constraints=[])
    assert half.draws == pytest.approx(whole.draws, nan_ok=True)
    for name in ("p_front", "commonsense.gain_corrected"):
        assert half.trials[name].tolist() == pytest.approx(whole.trials[name].tolist(), nan_ok=True)
    assert half.trials["commonsense.gain_se"][0] > 1.2 * whole.trials["commonsense.gain_se"][0]


def test_failed_baseline_is_reported_and_empties_the_front(usual):
    usual.ledger.write(TrialRecord(key=usual.base.key, state="failed", spec=usual.base, failure=oom()))
    sweep = usual.load()
    assert not sweep.trials["on_front"].any()
    assert sweep.failures["what"].tolist() == ["baseline", "trial 4"]
    assert f"Baseline {usual.base.key} is failed" in notices(sweep)[0]


def test_store_reads_and_exports_like_a_folder(s3, tmp_path):
    made = []
    for place in (root(f"{s3}/runs"), tmp_path):
        SITUATIONS["usual"](Builder(place)).load()
        sweep = load(f"{place}/quickstart/")
        made.append({path.name: read_bytes(path) for path in export(sweep)})
        page = read_bytes(write_report(sweep)).decode()
        assert f"python -m trials {place}/ledger/{sweep.front['key'].iloc[0]}/spec.yaml" in page
        assert sweep.trials["paired"].tolist() == [True] * 4 + [False] * 2
        with pytest.raises(InputError, match="the sweeps in it are quickstart"):
            load(place)
        with pytest.raises(InputError, match="no such folder"):
            load(place / "nowhere")
    assert set(made[0]) == {"front.csv", "front.json", "front.parquet", "front.html", "front.png"}
    assert made[0] == made[1]


def test_trials_of_a_storage_root_stand_below_each_other(usual, tmp_path):
    one = usual.load().trials
    found = analysis.trials(tmp_path, usual.folder)
    assert found["sweep"].tolist() == ["quickstart"] * 2 * len(one)
    pd.testing.assert_frame_equal(found.iloc[: len(one)].drop(columns=["sweep", "folder"]), one)
