"""The page of a trial."""

import pytest

from analysis.report.trial_page import SHORT, command, point, shortened
from tests.factories.sweeps import Builder
from trials.ledger.outcomes import Scale


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
    assert [flip.p for flip in page.flips] == [pytest.approx(2 / 2**6), pytest.approx(2 / 2**3)]


def test_page_has_the_forgetting_of_a_suite_that_decides(tmp_path):
    builder = Builder(tmp_path).baseline((20, 40)).add((26, 37))
    sweep = builder.load(constraints=["commonsense+math.worst_forgetting <= 10%"])
    parts = dict(point(sweep, sweep.trials.iloc[0].to_dict(), "").parts)
    assert [name for name, _ in parts["commonsense+math"]] == ["worst forgetting (% of the base)"]


def test_documents_of_one_cluster_flip_once(tmp_path):
    builder = Builder(tmp_path).baseline((20, 40)).add((26, 37))
    documents = builder.ledger.documents(builder.base.key)
    builder.ledger.write(
        builder.ledger.read(builder.base.key), documents.assign(cluster=[f"c{n // 3}" for n in documents.index])
    )
    page = point(sweep := builder.load(), sweep.trials.iloc[0].to_dict(), "")
    assert [(flip.lost, flip.won) for flip in page.flips] == [(0, 6), (3, 0)]
    assert page.flips[0].p == pytest.approx(2 / 2**3)  # documents 20 to 25 are in three clusters


def scaled(builder, scale, right):
    """A baseline and a trial whose mathematics has this scale."""
    builder.record(builder.base, (20, 40), scales={"math": scale})
    return builder.add(right, scales={"math": scale}).load()


def test_lost_documents_of_an_error_rate_are_those_that_became_wrong(tmp_path):
    sweep = scaled(Builder(tmp_path), Scale(higher_is_better=False), (26, 37))
    page = point(sweep, sweep.trials.iloc[0].to_dict(), "")
    assert [(flip.lost, flip.won) for flip in page.flips] == [(0, 6), (0, 3)]


def test_score_that_is_no_share_has_no_unit_on_the_page(tmp_path):
    sweep = scaled(Builder(tmp_path), Scale(form="mean", share=False), (26, 37))
    page = point(sweep, sweep.trials.iloc[0].to_dict(), "")
    assert [column.name for column in page.roles.columns][1:4] == ["baseline", "this trial", "gain"]
    assert [role for role, *_ in page.roles.rows] == ["commonsense (%)", "math"]
