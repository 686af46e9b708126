"""The report's sentences."""

from types import SimpleNamespace

import pandas as pd
import pytest

from analysis.export.trial_table import front_table, trial_table
from analysis.formatting import labels
from analysis.report.build import report
from analysis.report.findings import _unsteady, claims, headline, quoted
from analysis.results import schema as col
from tests.factories.sweeps import NASTY, SITUATIONS
from trials.ledger.record import Failure


def test_infeasible_sweep_names_the_nearest_trial(builder):
    (sentence, *_) = claims(builder.baseline().add((40, 10)).add((41, 30)).load())
    assert sentence.startswith("Nearest comes trial #1, with math forgetting +25.0 %")


def test_interval_that_spans_0_is_reported_as_such(builder):
    assert any("spans 0" in claim for claim in claims(builder.baseline().add((21, 40)).add((20, 40)).load()))


@pytest.fixture
def finished(builder):
    """Base 20 and 40 of 50. Trials: 0 and 1 on the front, 2 dominated, 3 beyond the constraint, 4 failed, 5 pending."""
    failure = Failure(kind="OutOfMemoryError", message=NASTY, traceback=f"Traceback\n{NASTY}")
    return builder.baseline().add((26, 37)).add((24, 40)).add((23, 38)).add((40, 10)).add(failure=failure).add()


def test_headline_counts_the_feasible_trials_and_quotes_the_corrected_best(finished):
    sweep = finished.load()
    corrected = labels.percent("commonsense.gain", sweep.trials["commonsense.gain_corrected"][0])
    assert headline(sweep) == (
        "3 of 4 finished trials keep math forgetting within 10 %; "
        f"best commonsense gain among them {corrected} points, corrected for selection (trial #0)."
    )
    assert corrected != "+12.0"


def test_headline_quotes_the_drift_of_its_trial_where_it_was_measured(builder):
    drift = {"tokens": 8, "loss": 1.0, "base_loss": 1.5, "kl": 0.25, "reverse_kl": 0.5}
    sweep = builder.baseline().add((26, 37), learning={"alpaca": drift}).add((24, 40)).load()
    assert headline(sweep).endswith("(trial #0, KL from the base 0.250 nats a token).")
    both = [{"metric": "commonsense.gain", "direction": "maximize"}, {"metric": "learning.kl", "direction": "minimize"}]
    assert "nats" not in headline(builder.load(objectives=both))  # the table has it
    sweep.trials.loc[0, "learning.kl"] = float("nan")
    assert headline(sweep).endswith("(trial #0).")


def test_nothing_is_called_corrected_where_nothing_is(builder):
    sweep = builder.baseline().add((26, 37)).add((24, 40)).add((23, 38)).load()
    assert headline(sweep).endswith("best commonsense gain among them +12.0 ± 4.6 points (trial #0).")
    assert not any("corrected" in claim for claim in claims(sweep))
    assert "corrected" not in str(front_table(sweep)) + str(trial_table(sweep, sweep.trials, sweep.trials["failure"], (), True))


def test_headline_counts_the_trials_that_were_given_up(finished):
    beaten = {"reason": "beaten", "seconds": 1.5}
    finished.trials[5] |= {"given_up": beaten}
    assert headline(finished.load()).endswith("(trial #0). 1 trial was given up.")
    finished.trials = [{**finished.trials[5], "number": number} for number in range(2)]
    assert headline(finished.load()) == "None of 2 trials has finished yet. 2 trials were given up."
    finished.trials.pop()
    assert headline(finished.load()) == "The only trial was given up."


def test_report_says_where_nothing_beats_doing_nothing(builder):
    sweep = builder.baseline().add((18, 39)).add((19, 38)).load()
    assert headline(sweep) == (
        "2 of 2 finished trials keep math forgetting within 10 %; the untrained base beats each of them."
    )
    assert claims(sweep)[0].startswith("Nothing beats doing nothing: the untrained base is better than each of the 2 trials")


def test_headline_blames_no_base_that_has_no_value(builder):
    sweep = builder.add((18, 39)).add((19, 38)).load(constraints=[])  # no baseline
    assert headline(sweep) == "2 finished trials; none of them has a value for every objective."
    assert not any("untrained base" in claim for claim in claims(sweep))


@pytest.mark.parametrize("constraints", [[], ["math.forgetting <= 0.10"]])
def test_headline_says_that_a_rate_is_undefined_where_the_base_scores_0(builder, constraints):
    sweep = builder.baseline((20, 0)).add((18, 39)).add((19, 38)).load(constraints=constraints)
    assert headline(sweep) == (
        "No trial can be judged: math forgetting is undefined, since the base scores 0 in math; "
        "search math.drop or math.gold_bpb_delta instead."
    )


def test_headline_says_that_numbers_of_choices_are_unknown(builder):
    sweep = builder.baseline().add((18, 39)).add((19, 38)).load(constraints=["math.lost_adjusted <= 10%"])
    assert headline(sweep).startswith("No trial can be judged: math lost beyond chance is undefined")


def test_best_without_a_value_on_the_report_half_is_not_quoted(usual):
    sweep = usual.load(objectives=[{"metric": "math.forgetting", "direction": "minimize"}], constraints=[])
    sweep.trials[["math.forgetting", col.corrected("math.forgetting")]] = float("nan")
    assert headline(sweep).endswith("best math forgetting by trial #1, without a value on the report half.")
    assert (
        claims(sweep)[0] == "Trial #1 is best by the search half; the base has no math forgetting on the report half to quote."
    )


def test_trials_that_the_base_beats_have_pages_where_the_front_is_empty(builder):
    page = report(builder.baseline().add((18, 39)).load())
    assert "Finished trials, one by one" in page
    assert 'id="trial-0"' in page


def test_report_says_how_many_trials_the_base_beats(builder):
    found = claims(builder.baseline().add((18, 39)).add((25, 38)).load())
    assert any("It is better than 1 of the 2 trials that could be on the front." in one for one in found)
    assert any("each gain has its price" in one for one in found)
    found = claims(builder.baseline().add((18, 39)).add((25, 40)).load())
    assert not any("each gain has its price" in one for one in found)


@pytest.mark.parametrize(
    ("situation", "start"),
    [
        ("nothing asked", "The sweep has no trial yet."),
        ("nothing finished", "None of 2 trials has finished yet."),
        ("all failed", "All 2 trials failed."),
        ("none feasible", "None of 2 finished trials keeps math forgetting within 10 %."),
        ("one trial", "The only finished trial keeps math forgetting within 10 %; best commonsense gain 0.0"),
        ("only trial pending", "The only trial has not finished yet."),
        ("only trial infeasible", "The only finished trial does not keep math forgetting within 10 %."),
    ],
)
def test_headline_without_a_result_says_so(builder, situation, start):
    single = {
        "only trial pending": lambda: builder.baseline().add(),
        "only trial infeasible": lambda: builder.baseline().add((40, 10)),
    }
    made = single[situation]() if situation in single else SITUATIONS[situation](builder)
    assert headline(made.load()).startswith(start)


def test_base_too_low_for_a_rate_is_in_the_unit_of_its_role(monkeypatch):
    monkeypatch.setattr(labels, "_NO_SHARES", {"notes"})
    baselines = pd.DataFrame({"math.value": [0.02], "math.value_se": [0.01], "notes.value": [2.0], "notes.value_se": [1.0]})
    baselines = baselines.rename(columns={f"{role}.value_se": col.se(f"{role}.value") for role in ("math", "notes")})
    sweep = SimpleNamespace(judged=["math.forgetting", "notes.forgetting"], complete_baselines=baselines)
    math, notes = _unsteady(sweep)
    assert math.startswith("The math base is 2.0 ± 1.0 %, less than")
    assert notes.startswith("The notes base is 2.000 ± 1.000, less than")
    assert _unsteady(SimpleNamespace(judged=["notes.forgetting"], complete_baselines=baselines * [1, 1, 0, 1])) == [
        "The notes base is 0, so its forgetting rate is undefined; read the drop."
    ]


def test_only_constraints_can_look_violated(builder):
    whole = builder.baseline().add((26, 37))
    assert quoted(whole.load(documents="half")).endswith("A constraint may therefore look slightly violated.")
    assert quoted(whole.load(documents="half", constraints=[])).endswith("decided which trials are on the front.")
