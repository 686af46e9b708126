"""`slimsweep import` prints what a finished sweep prints, and bad input is one line."""

import json

from tests.factories.lm_eval_folder import base_and_tunes


def test_imported_front_is_printed_and_written(command, tmp_path):
    folder = tmp_path / "runs" / "out"
    done = command("import", base_and_tunes(tmp_path / "out"), "--storage", folder.parent)
    assert done.returncode == 0, done.stderr
    assert "front of out: 2 of 2 trials" in done.stdout
    assert (folder / "report.html").is_file()
    assert "2 of 2 trials complete" in command("status", folder).stdout
    refused = command("publish", folder, "careful", "--to", tmp_path / "published")
    assert refused.returncode == 2
    assert "lm-eval measured me/careful, and nothing was trained here; there is no adapter to publish" in refused.stderr
    assert len(refused.stderr.splitlines()) == 1


def test_json_stands_alone_on_standard_output(command, tmp_path):
    done = command("import", base_and_tunes(tmp_path / "out"), "--storage", tmp_path / "runs", "--json", "--documents", "all")
    assert {row["params"]["model"] for row in json.loads(done.stdout)["front"]} == {"careful", "greedy"}


def test_folder_without_results_is_bad_input(command, tmp_path):
    done = command("import", tmp_path, "--storage", tmp_path / "runs")
    assert done.returncode == 2
    assert "no results of lm-eval in it" in done.stderr
    assert len(done.stderr.splitlines()) == 1
