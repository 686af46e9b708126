"""A requirement is decided by the whole interval, on the documents that results are quoted on."""

import math

import pytest

from analysis.explore.gate import as_dict, gate, lines
from analysis.results import schema as col
from trials.errors import InputError
from trials.evaluation import aggregate


def decisions(found):
    return [ruling.decision for ruling in found.rulings]


def test_interval_decides_and_not_the_value(usual):
    sweep = usual.load()
    row = sweep.front.iloc[0]
    name = "commonsense.gain"
    low, value, high = row[col.low(name)], row[name], row[col.high(name)]
    bounds = [low - 0.01, (low + value) / 2, (value + high) / 2, high + 0.01]
    assert decisions(gate(sweep, [f"{name} >= {bound}" for bound in bounds])) == [
        "holds",
        "cannot tell",
        "cannot tell",
        "broken",
    ]
    assert decisions(gate(sweep, [f"{name} <= {bound}" for bound in bounds])) == [
        "broken",
        "cannot tell",
        "cannot tell",
        "holds",
    ]


def test_end_of_the_interval_on_the_bound_keeps_it(usual):
    sweep = usual.load()
    low = float(sweep.front.iloc[0][col.low("commonsense.gain")])
    assert decisions(gate(sweep, [f"commonsense.gain >= {low!r}"])) == ["holds"]


def test_broken_requirement_outweighs_an_open_one(usual):
    found = gate(usual.load(), ["commonsense.gain >= 0.12", "math.forgetting <= -1"])
    assert (decisions(found), found.decision) == (["cannot tell", "broken"], "broken")


def test_numbers_are_those_of_the_report_half(usual):
    """With the searched half's numbers instead, the decision would be another one."""
    for key in [trial["key"] for trial in usual.trials[:4]] + [usual.base.key]:
        record = usual.ledger.read(key)
        frame = usual.ledger.documents(key).assign(half=["search", "report"] * 50)
        frame["cluster"] = frame["doc_hash"]
        # on the searched half every answer is right
        frame.loc[frame["half"] == "search", "score"] = 1.0
        for role, rows in frame.groupby("role"):
            record.halves[role] = aggregate.halves(rows)
        usual.ledger.write(record, frame)
    sweep = usual.load(documents="half", constraints=[])
    found = gate(sweep, ["math.forgetting <= 0.1"], "#3")
    row = sweep.trials.iloc[3]
    assert row[col.searched("math.forgetting")] == 0
    assert found.rulings[0].documents == 25
    assert as_dict(found)["requirements"][0]["value"] == row["math.forgetting"] > 0.5
    assert found.decision == "broken"
    assert "on the report half of the documents" in lines(found)[0]


def test_best_is_the_first_of_the_front_and_otherwise_the_only_trial(builder):
    builder.baseline().add((20, 10))
    assert gate(builder.load(), ["math.drop <= 0.5"]).row["number"] == 0
    sweep = builder.add((26, 38)).add((24, 40)).load()
    assert gate(sweep, ["math.drop <= 0.5"]).row["number"] == 1


def test_best_of_many_on_the_searched_documents_is_named(usual, builder):
    assert "picked on the documents that its values come from" in gate(usual.load(), ["math.drop <= 0.5"]).caveats[0]
    assert not gate(usual.load(), ["math.drop <= 0.5"], "#0").caveats


@pytest.mark.parametrize(
    ("trial", "requirement", "expected"),
    [
        ("#5", "math.drop <= 0.5", "trial #5 of quickstart is pending; it has no numbers"),
        ("#4", "math.drop <= 0.5", "trial #4 of quickstart is failed"),
        ("best", "math.marker_drop <= 0.5", "quickstart has not measured math.marker_drop; it has commonsense.value"),
        ("best", "maths.drop <= 0.5", "no benchmark has the role 'maths'; did you mean math.drop?"),
    ],
)
def test_what_cannot_be_required_is_one_line(trial, requirement, expected, usual):
    with pytest.raises(InputError, match=expected) as caught:
        gate(usual.load(), [requirement], trial)
    assert "\n" not in str(caught.value)


def test_no_trial_within_the_constraints_is_one_line(builder):
    sweep = builder.baseline().add((40, 10)).add((41, 9)).load()
    with pytest.raises(InputError, match="none of 2 trials is on the front, so there is no best one"):
        gate(sweep, ["math.drop <= 0.5"])


def test_undefined_rate_cannot_be_told(builder):
    sweep = builder.baseline((20, 0)).add((25, 0)).load(constraints=[])
    found = gate(sweep, ["math.forgetting <= 0.1"], "#0")
    assert found.decision == "cannot tell"
    assert lines(found)[1].endswith("it is undefined, as the base scores 0: require the drop")
    assert as_dict(found)["requirements"][0]["value"] is None


def test_metric_that_the_trial_lacks_is_not_blamed_on_the_base(usual):
    sweep = usual.load()
    row = sweep.trials["number"] == 0
    sweep.trials.loc[row, "math.drop"] = sweep.trials.loc[row, ["math.drop_low", "math.drop_high"]] = float("nan")
    assert lines(gate(sweep, ["math.drop <= 0.1"], "#0"))[1].endswith("the trial or its baseline has no value of it")


def test_point_that_is_no_valid_trial_is_named_itself(usual):
    with pytest.raises(InputError, match="trial #7 of quickstart is failed"):
        gate(usual.invalid().invalid().load(), ["math.drop <= 0.1"], "#7")


def test_open_requirement_names_documents_that_would_settle_it(usual):
    (ruling,) = gate(usual.load(), ["commonsense.gain >= 0.1"], "#0").rulings
    assert ruling.decision == "cannot tell"
    assert ruling.needed > ruling.documents == 50
    unit = 10 ** (len(str(ruling.needed)) - 2)
    shown = math.ceil(ruling.needed / unit) * unit
    assert f"about {shown:,} such documents would settle it" in lines(gate(usual.load(), ["commonsense.gain >= 0.1"], "#0"))[1]


def test_replicates_are_counted_as_seeds(builder):
    sweep = builder.baseline().replicate((26, 37), (25, 39), (27, 38)).load(constraints=[])
    (ruling,) = gate(sweep, ["commonsense.gain >= 0.1"]).rulings
    assert ruling.seeds == 3
    assert "50 documents, 3 seeds" in lines(gate(sweep, ["commonsense.gain >= 0.1"]))[1]


def test_suite_is_gated_though_no_search_was_for_it(usual):
    name = "commonsense+math.worst_forgetting"
    row = usual.load().front.iloc[0]
    worst = max(row["commonsense.forgetting"], row["math.forgetting"])
    found = gate(usual.load(), [f"{name} <= 1", f"{name} <= -1"])
    assert decisions(found) == ["holds", "broken"]
    assert found.rulings[0].row[name] == pytest.approx(worst)
    assert found.rulings[0].documents == 100


def test_suite_that_did_not_answer_the_bases_documents_is_refused(builder):
    sweep = builder.baseline().add((26, 37), documents=False).load()
    with pytest.raises(InputError, match="has not answered the base's documents of each role"):
        gate(sweep, ["commonsense+math.worst_forgetting <= 0.1"], trial="#0")
