"""Too few usable rows are found before a trial."""

import json

import pytest

from tests.factories.rows import local_data
from trials.data.survey import Survey
from trials.errors import InputError
from trials.hub.hub import Hub
from trials.spec import TrialSpec


def test_too_few_usable_rows_are_reported_before_any_trial(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = [{"q": f"question {n % 5}", "a": "answer"} for n in range(60)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    parts = {"base": {"model": "micro", "dtype": "float32"}, "eval": {"math": {"task": "t", "metric": "acc"}}}
    spec = TrialSpec.model_validate(parts | {"data": local_data("rows.jsonl", samples=55)})
    with pytest.raises(InputError, match="copy of a held-out row"):
        Survey(Hub()).check(spec)
