"""The shipped data sets."""

import pandas as pd

from tests.factories.micro_rows import micro_rows
from trials.micro import datasets


def test_generator_reproduces_shipped_data(tmp_path):
    datasets.write(tmp_path)
    for path in tmp_path.rglob("*.parquet"):
        made = pd.read_parquet(path)
        shipped = micro_rows()[f"{path.parent.parent.name}/{path.name.split('-')[0]}"]
        assert made.to_dict("records").__repr__() == shipped.to_dict("records").__repr__()


def test_answer_positions_are_balanced():
    for name, column in (("swag/test", "label"), ("cs/test", "answer")):
        shares = micro_rows()[name][column].astype(int).value_counts(normalize=True)
        assert shares.between(0.18, 0.32).all(), shares
