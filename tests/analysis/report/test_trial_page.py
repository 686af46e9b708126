"""The page of a trial."""

import pytest

from analysis.report.trial_page import SHORT, command, mcnemar, point, shortened
from tests.factories.sweeps import Builder


def test_mcnemar_p_is_binomial_over_differing_documents():
    assert mcnemar(0, 0) == 1.0
    assert mcnemar(0, 6) == pytest.approx(2 / 2**6)
    assert mcnemar(6, 0) == mcnemar(0, 6)
    assert mcnemar(1, 4) == pytest.approx(2 * (1 + 5) / 2**5)


def test_long_text_is_shortened_and_whole_on_demand():
    assert shortened("x " * SHORT) == ("x " * (SHORT // 2 - 1) + "x …", "x " * SHORT) and shortened("short") == ("short", "")


def test_command_names_the_spec_and_a_storage_of_its_own(tmp_path):
    sweep = Builder(tmp_path).baseline().add((26, 37)).load()
    key = sweep.trials["key"][0]
    assert f"{key}/spec.yaml --storage repeated" in command(sweep, key)


def test_page_has_the_roles_and_the_flips(tmp_path):
    sweep = Builder(tmp_path).baseline((20, 40)).add((26, 37)).load()
    page = point(sweep, sweep.trials.iloc[0].to_dict(), "")
    assert [role for role, *_ in page.roles.rows] == ["commonsense", "math"]
    assert [(flip.lost, flip.won) for flip in page.flips] == [(0, 6), (3, 0)]
