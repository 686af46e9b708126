import subprocess
import sys

from analysis.results import schema as col


def test_states_are_in_the_order_of_reports():
    assert col.STATES == ("complete", "failed", "given up", "pending")


def test_interval_names_the_columns_of_the_frame():
    assert col.interval("math.gain") == {"value": "math.gain", "low": "math.gain_low", "high": "math.gain_high"}
    assert col.ends(col.corrected("math.gain")) == ["math.gain_corrected_low", "math.gain_corrected_high"]


def test_schema_loads_no_pandas():
    code = "import sys, analysis.results.schema; sys.exit('pandas' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
