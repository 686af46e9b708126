"""A comparison of two sweeps as files."""

import json

from analysis.explore.compare import compare
from analysis.report.compare_page import write
from tests.factories.sweeps import Builder


def test_all_files_are_written_and_equal_comparisons_are_equal_files(tmp_path):
    sweep = Builder(tmp_path / "sweep").baseline().add((26, 37)).add((24, 40)).load()
    first, second = (write(compare(sweep, sweep), tmp_path / name) for name in "ab")
    assert [path.name for path in first] == ["compare.json", "fronts.png", "fronts.svg", "compare.html"]
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]
    assert json.loads(first[0].read_text())


def test_sweeps_without_a_front_have_a_page(tmp_path):
    empty = Builder(tmp_path / "sweep").load()
    assert "Neither front has a point." in write(compare(empty, empty), tmp_path)[3].read_text()
