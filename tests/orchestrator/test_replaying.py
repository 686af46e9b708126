"""`slimsweep replay` compares levers on a finished sweep."""

import json

from orchestrator.import_results import Request, import_results
from tests.factories.lm_eval_folder import base_and_tunes, shares, write
from tests.factories.sweeps import Builder


def test_sweep_that_is_too_small_is_bad_input(tmp_path, command):
    builder = Builder(tmp_path)
    builder.baseline().add((26, 37)).load()
    done = command("replay", builder.folder)
    assert done.returncode == 2
    assert "1 complete trials; a replay needs more than" in done.stderr


def test_json_has_the_levers(tmp_path, command):
    builder = Builder(tmp_path)
    builder.baseline()
    for number in range(14):
        builder.add((20 + number, 40 - number))
    builder.load()
    done = command("replay", builder.folder, "--orders", 1, "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["points"], found["orders"]) == (14, 1)


def test_imported_results_have_no_time_to_save(tmp_path, command):
    source = base_and_tunes(tmp_path / "out")
    for number in range(12):
        write(source, {"pretrained": "org/base", "peft": f"me/tune-{number}"}, {"gsm": shares(40), "swag": shares(30 + number)})
    import_results(source, tmp_path / "runs", Request("there"), print)
    done = command("replay", tmp_path / "runs" / "there")
    assert done.returncode == 2
    assert "its results were imported, so no time was spent here that a replay could save" in done.stderr
