"""The files and figures at the end of a sweep."""

import io
import json

from orchestrator.console.terminal import Terminal
from orchestrator.finish import finish
from tests.factories.sweeps import Builder


def test_front_and_report_are_written_counted_and_printed(tmp_path):
    folder = Builder(tmp_path).baseline().add((21, 39)).add((22, 38)).load().folder
    console = Terminal(file=io.StringIO(), width=160)
    outcome = finish(folder.parent, folder.name, console)
    assert (outcome["complete"], outcome["failed"]) == (2, 0)
    assert outcome["front"] == json.loads((folder / "front.json").read_text())
    assert str(folder / "report.html") in outcome["files"]
    assert "report.html" in console.file.getvalue()
