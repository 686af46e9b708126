"""The shipped data sets of the miniature base."""

from functools import cache
from pathlib import Path

import pandas as pd

import trials.micro


@cache
def micro_rows() -> dict[str, pd.DataFrame]:
    """Rows by "NAME/SPLIT"."""
    files = (Path(trials.micro.__file__).parent / "hub" / "micro").rglob("*.parquet")
    return {f"{path.parent.parent.name}/{path.name.split('-')[0]}": pd.read_parquet(path) for path in files}
