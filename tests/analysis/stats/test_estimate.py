"""Metrics and their errors: by hand, against other documents and seeds, and where documents do not pair."""

import math

import numpy as np
import pandas as pd
import pytest

from analysis.metrics.definitions import CHANGES
from analysis.metrics.names import metric_names
from analysis.stats.estimate import Setting, learning, measure, measure_all
from trials.evaluation import aggregate
from trials.ledger.outcomes import Scale, pack
from trials.ledger.record import Score, TrialRecord

TUNED = [1, 0, 0, 1, 1, 0, 1, 0]
BASE = [1, 1, 0, 1, 0, 1, 1, 1]


@pytest.fixture
def record(spec):
    """Makes records of the outcomes of one or several roles: lists, or frames of more columns."""

    def make(roles, *, baseline=False, hashes=None, packed=True, halves=None, **more):
        roles = roles if isinstance(roles, dict) else {"math": roles}
        frames, scores = [], {}
        for role, columns in roles.items():
            columns = columns if isinstance(columns, dict) else {"score": columns}
            n = len(columns["score"])
            own = pd.DataFrame({**columns, "role": role, "task": "t", "doc_hash": hashes or [f"h{i}" for i in range(n)]})
            frames.append(own if halves is None else own.assign(half=halves))
            scores[role] = share(columns["score"])
        packing = pack(pd.concat(frames), baseline) if packed else {}
        return TrialRecord(key=spec.key, state="complete", spec=spec, scores=scores, outcomes=packing, **more)

    return make


def share(values):
    values = np.asarray(values, dtype=float)
    return Score(value=values.mean(), stderr=values.std(ddof=1) / math.sqrt(len(values)), n=len(values))


def test_gain_drop_and_forgetting_follow_the_papers_definitions(record):
    found = measure([record(TUNED)], record(BASE, baseline=True))
    assert found["math.gain"].value == pytest.approx(-2 / 8)
    assert found["math.drop"].value == pytest.approx(2 / 8)
    assert found["math.forgetting"].value == pytest.approx(2 / 6)
    assert (found["math.value"].value, found["math.base"].value) == (4 / 8, 6 / 8)


def test_forgetting_is_undefined_at_base_zero(record):
    with np.errstate(divide="raise"):
        found = measure([record(TUNED)], record([0] * 8, baseline=True))
        several = measure([record(TUNED), record(BASE)], record([0] * 8, baseline=True))
    assert found["math.forgetting"] is None
    assert several["math.forgetting"] is None
    assert found["math.gain"].value == 0.5


@pytest.mark.parametrize(("tuned", "base"), [([1] * 8, [0] * 8), ([0] * 8, [1] * 8), ([0] * 8, [0] * 7 + [1]), (TUNED, BASE)])
def test_intervals_of_a_share_hold_no_impossible_change(record, tuned, base):
    """A tuned share is within 0..1, and the base's within its own interval."""
    found = measure_all([Setting([record(tuned)], record(base, baseline=True))])
    base_low, base_high = found["math.base"].low[0], found["math.base"].high[0]
    assert -base_high <= found["math.gain"].low[0] <= found["math.gain"].high[0] <= 1 - base_low
    assert base_low - 1 <= found["math.drop"].low[0] <= found["math.drop"].high[0] <= base_high
    assert not found["math.forgetting"].high[0] > 1  # undefined for a base at 0
    for metric in found.values():
        assert not np.any((metric.value < metric.low) | (metric.value > metric.high))


def test_base_without_a_right_answer_leaves_room_for_a_loss(record):
    """Eight wrong answers do not show that the base knows nothing."""
    found = measure_all([Setting([record([0] * 8)], record([0] * 8, baseline=True))])["math.gain"]
    assert found.low[0] < 0 < found.high[0]


def test_intervals_of_a_score_that_is_no_share_are_not_cut(record):
    scores, scales = {"notes": [0.0, 4.0] * 25}, {"notes": Scale(share=False)}
    found = measure_all([Setting([record(scores, scales=scales)], record({"notes": [1.5] * 50}, baseline=True, scales=scales))])
    assert found["notes.gain"].high[0] > 1


def test_values_of_a_score_that_is_no_share_are_not_cut_where_their_mean_is_below_1(record):
    """An error of 0 or 4 has a mean of 0.96 here: its interval goes on beyond 1."""
    scales, scores = {"notes": Scale(higher_is_better=False, share=False)}, {"notes": [0.0, 0.0, 4.0] * 16 + [0.0, 0.0]}
    found = measure_all([Setting([record(scores, scales=scales)], record(scores, baseline=True, scales=scales))])
    assert found["notes.value"].high[0] > 1
    assert found["notes.base"].high[0] > 1


def test_role_is_no_share_where_one_of_its_records_is_none(record):
    """A baseline whose scores all lie in 0 to 1 says nothing of a trial's."""
    tuned, base = (
        record({"notes": [9.0] + [0.5] * 49}, scales={"notes": Scale(share=False)}),
        record({"notes": [0.5] * 50}, baseline=True),
    )
    other = record({"notes": [0.75] * 25 + [0.5] * 25})
    found, alone = measure_all([Setting([tuned], base), Setting([other], base)]), measure_all([Setting([other], base)])
    assert found["notes.gain"].most[0] == np.inf
    assert np.isnan(found["notes.lost"].value[0])
    for name in ("notes.gain", "notes.won"):
        assert (found[name].low[1], found[name].high[1]) == (alone[name].low[0], alone[name].high[0])


def test_metric_without_bounds_has_no_interval_over_few_documents(record):
    """Fewer than 50 documents say too little of a tail. The standard error stays."""
    scales = {"notes": Scale(share=False)}
    for n, known in ((49, False), (50, True)):
        sides = [record({"notes": list(np.arange(n) % 7 + side)}, baseline=bool(side), scales=scales) for side in (0, 1)]
        found = measure_all([Setting([sides[0]], sides[1])])
        for name in ("notes.gain", "notes.value", "notes.forgetting"):
            assert np.isfinite([found[name].low[0], found[name].high[0]]).tolist() == [known] * 2
            assert np.isfinite(found[name].stderr[0])


def test_without_a_baseline_only_the_value_is_defined(record):
    found = measure([record(TUNED)], None)
    assert found["math.value"].value == 0.5
    assert [name for name, estimate in found.items() if estimate is None] == [
        f"math.{kind}" for kind in ("gain", "drop", "forgetting", "base")
    ]


def test_names_and_metrics_of_a_role_correspond(record):
    both = {"math": TUNED, "commonsense": BASE}
    found = measure([record(both)], record(both, baseline=True))
    paired = [f"{role}.{name}" for role in both for name in CHANGES]
    assert sorted(found) == sorted([*metric_names(both), *paired])


def test_paired_error_of_a_gain_is_that_of_the_mean_difference(record):
    found = measure([record(TUNED)], record(BASE, baseline=True))
    # differences 0 -1 0 0 1 -1 0 -1: mean -1/4, squares about it 4 - 8/16 = 3.5, variance 3.5/7, standard error sqrt(0.5/8)
    for kind in ("gain", "drop"):
        assert found[f"math.{kind}"].stderr == pytest.approx(0.25)
        assert found[f"math.{kind}"].paired
    unpaired = measure([record(TUNED, packed=False)], record(BASE, baseline=True))["math.gain"]
    assert unpaired.stderr == pytest.approx(math.hypot(share(TUNED).stderr, share(BASE).stderr))
    assert not unpaired.paired


def test_paired_error_of_forgetting_is_the_delta_method_with_covariance(record):
    tuned, base = np.array(TUNED, dtype=float), np.array(BASE, dtype=float)
    (var_t, cov), (_, var_b) = np.cov(tuned, base) / len(tuned)
    t, b = tuned.mean(), base.mean()
    gradient = math.sqrt(var_t / b**2 + var_b * t**2 / b**4 - 2 * cov * t / b**3)
    found = measure([record(TUNED)], record(BASE, baseline=True))
    assert found["math.forgetting"].stderr == pytest.approx(gradient, rel=1e-5)


def test_documents_pair_in_any_order(record):
    order = [3, 1, 7, 0, 2, 6, 5, 4]
    found = measure([record([TUNED[i] for i in order], hashes=[f"h{i}" for i in order])], record(BASE, baseline=True))
    assert found["math.gain"].stderr == pytest.approx(0.25)


@pytest.mark.parametrize("hashes", [list("abcdefgh"), [f"h{i}" for i in range(7)] + ["h0"]], ids=["others", "one twice"])
def test_other_documents_give_unpaired_errors(record, hashes):
    found = measure([record(TUNED, hashes=hashes)], record(BASE, baseline=True))["math.gain"]
    assert not found.paired
    assert found.stderr == pytest.approx(math.hypot(share(TUNED).stderr, share(BASE).stderr))


def test_error_counts_a_cluster_as_one_document(record):
    """Every document four times over: no more is known than from one of each."""
    base = record(BASE * 4, baseline=True, hashes=[f"h{i}" for i in range(32)])
    frame = pd.DataFrame({"role": "math", "task": "t", "doc_hash": [f"h{i}" for i in range(32)], "score": BASE * 4})
    base.outcomes = pack(frame.assign(cluster=[f"c{i % 8}" for i in range(32)]), True)
    tuned = record(TUNED * 4, hashes=[f"h{i}" for i in range(32)])
    assert measure([tuned], base)["math.gain"].stderr == pytest.approx(0.25)


def test_only_the_named_metrics_are_measured(record):
    both = {"math": TUNED, "commonsense": BASE}
    settings, seen = [Setting([record(both)], record(both, baseline=True))], []
    found = measure_all(settings, watch=lambda role, *_: seen.append(role), only=["math.gain"])
    assert (list(found), seen) == (["math.gain"], ["math"])
    assert found["math.gain"].stderr == measure_all(settings)["math.gain"].stderr


def test_metrics_are_those_of_the_requested_split(record):
    halves = ["search", "report"] * 4
    sides = [record(one, baseline=one is BASE, halves=halves) for one in (TUNED, BASE)]
    for side, outcomes in zip(sides, (TUNED, BASE), strict=True):
        side.halves = {"math": {half: {"score": share(outcomes[place::2])} for place, half in enumerate(["search", "report"])}}
    found = measure([sides[0]], sides[1], split="report")["math.gain"]
    differences = np.array(TUNED[1::2]) - np.array(BASE[1::2])
    assert found.value == differences.mean()
    assert found.stderr == pytest.approx(differences.std(ddof=1) / 2)


def test_copies_of_a_replicate_add_no_certainty(record):
    base = record(BASE, baseline=True)
    once, often = measure([record(TUNED)], base), measure([record(TUNED)] * 5, base)
    for name in ("value", "gain", "drop", "forgetting"):
        assert often[f"math.{name}"].stderr == pytest.approx(once[f"math.{name}"].stderr)
        assert (once[f"math.{name}"].sd, often[f"math.{name}"].sd) == (None, 0)
    assert once["math.base"] == often["math.base"]


def test_replicates_that_agree_narrow_no_interval(record):
    """Nor do copies of a document: neither shows that its flip was no luck."""
    base = record(BASE, baseline=True)
    once, often = (measure_all([Setting([record(TUNED)] * count, base)]) for count in (1, 5))
    copies = record(BASE * 4, baseline=True, hashes=[f"h{i}" for i in range(32)])
    frame = pd.DataFrame({"role": "math", "task": "t", "doc_hash": [f"h{i}" for i in range(32)], "score": BASE * 4})
    copies.outcomes = pack(frame.assign(cluster=[f"c{i % 8}" for i in range(32)]), True)
    copied = measure_all([Setting([record(TUNED * 4, hashes=[f"h{i}" for i in range(32)])], copies)])
    for other in (often, copied):
        for name in ("math.gain", "math.drop"):
            assert (other[name].low[0], other[name].high[0]) == pytest.approx((once[name].low[0], once[name].high[0]), abs=1e-6)


def test_error_is_exactly_0_where_no_document_changed(record):
    third = [1, 0, 0] * 4  # a base whose slopes, which are differences, leave a last digit
    found = measure_all([Setting([record(third)], record(third, baseline=True))])
    assert [found[f"math.{kind}"].stderr[0] for kind in ("gain", "drop", "forgetting")] == [0, 0, 0]
    assert found["math.forgetting"].high[0] > 0.5


def test_error_of_replicates_is_at_least_that_of_seeds_and_of_documents(record):
    other = [1, 1, 0, 1, 1, 0, 1, 1]
    found, documents = measure([record(TUNED), record(other)], record(BASE, baseline=True)), (np.array(TUNED) + other) / 2
    assert found["math.value"].value == pytest.approx((4 / 8 + 6 / 8) / 2)
    assert found["math.gain"].value == pytest.approx(5 / 8 - 6 / 8)
    assert found["math.forgetting"].value == pytest.approx(1 / 6)
    sd = math.sqrt(2) / 8  # of 4/8 and 6/8
    assert found["math.gain"].sd == pytest.approx(sd)
    assert found["math.forgetting"].sd == pytest.approx(sd / (6 / 8))
    assert found["math.gain"].paired
    by_document = (documents - BASE).std(ddof=1) / math.sqrt(8)
    assert max(by_document, sd / math.sqrt(2)) <= found["math.gain"].stderr <= math.hypot(by_document, sd / math.sqrt(2))


def test_error_of_replicates_covers_new_seeds_and_new_documents(record):
    """Against the variance that the outcomes are drawn with; taken as independent, they would give a third of it."""
    random, replicates, documents = np.random.default_rng(0), 3, 60
    truth = 0.05**2 / replicates + 0.4**2 / documents + 0.3**2 / (replicates * documents)
    squares, naive = [], []
    for _ in range(200):
        seeds, difficulty = random.normal(0, 0.05, (replicates, 1)), random.normal(0, 0.4, documents)
        outcomes = 0.5 + seeds + difficulty + random.normal(0, 0.3, (replicates, documents))
        found = measure([record(one) for one in outcomes], record(np.zeros(documents), baseline=True))
        squares.append(found["math.gain"].stderr ** 2)
        naive.append(outcomes.var(ddof=1) / outcomes.size)
    assert 0.9 < np.mean(squares) / truth < 1.15
    assert np.mean(naive) / truth < 0.5


def test_unpaired_error_does_not_shrink_with_replicates(record):
    found = measure([record(TUNED), record(TUNED, hashes=list("abcdefgh"))], record(BASE, baseline=True))
    assert found["math.value"].stderr == pytest.approx(share(TUNED).stderr)
    assert found["math.gain"].stderr == pytest.approx(math.hypot(share(TUNED).stderr, share(BASE).stderr))
    assert not found["math.gain"].paired
    assert found["math.gain"].sd == 0


def test_settings_measured_together_equal_each_alone(record):
    base, other = record(BASE, baseline=True), record([1] * 8, baseline=True)
    other.key = "another"
    settings = [
        Setting([record(TUNED)], base),
        Setting([record(BASE), record(TUNED)], base),
        Setting([], base),
        Setting([record(TUNED)], None),
        Setting([record([1, 1, 1, 1, 0, 0, 0, 0])], other),
    ]
    together = measure_all(settings)
    for place, setting in enumerate(settings):
        if not setting.records:
            assert not any(one.known[place] for one in together.values())
            continue
        for name, estimate in measure(setting.records, setting.base).items():
            own = together[name]
            assert (estimate.value if estimate else math.nan) == pytest.approx(own.value[place], nan_ok=True)
            stderr = math.nan if estimate is None or estimate.stderr is None else estimate.stderr
            assert stderr == pytest.approx(own.stderr[place], nan_ok=True)


def answered(random, n, with_marker, right_given_marker):
    marker = random.random(n) < with_marker
    strict = (marker & (random.random(n) < right_given_marker)) * 1.0
    return {"score": strict, "marker": marker * 1.0, "strict": strict}


def detailed(make, columns, **more):
    details = {name: share(columns[name]) for name in columns if name in ("marker", "strict")}
    if "bits" in columns:
        details["bpb"] = Score(value=columns["bits"].sum() / columns["bytes"].sum(), stderr=0.01, n=len(columns["bits"]))
    return make({"math": columns}, details={"math": details}, **more)


@pytest.mark.parametrize(("tuned", "base"), [((0.4, 0.5), (0.9, 0.6)), ((1.0, 0.1), (0.8, 0.9)), ((0.3, 0.9), (0.3, 0.5))])
def test_format_and_skill_add_up_to_the_forgetting_rate(record, tuned, base):
    random = np.random.default_rng(0)
    sides = [answered(random, 500, *one) for one in (tuned, base)]
    found = measure([detailed(record, sides[0])], detailed(record, sides[1], baseline=True))
    both = found["math.format_forgetting"].value + found["math.skill_forgetting"].value
    assert both == pytest.approx(found["math.forgetting"].value)
    assert found["math.marker_drop"].value == pytest.approx(sides[1]["marker"].mean() - sides[0]["marker"].mean())


@pytest.mark.parametrize(
    ("tuned", "base", "expected"),
    [((0, 0), (10, 20), (1.0, 0.0)), ((4, 20), (8, 20), (0.0, 0.5)), ((2, 10), (0, 20), None)],
    ids=["it never writes the marker", "it always does", "undefined at base 0"],
)
def test_answers_without_marker_lose_format_alone(record, tuned, base, expected):
    """(right, with the marker) of 20."""
    sides = []
    for right, marker in (tuned, base):
        strict = np.array([1.0] * right + [0.0] * (20 - right))
        sides.append({"score": strict, "strict": strict, "marker": np.array([1.0] * marker + [0.0] * (20 - marker))})
    found = measure([detailed(record, sides[0])], detailed(record, sides[1], baseline=True))
    values = [found[f"math.{kind}_forgetting"] for kind in ("format", "skill")]
    assert [one and one.value for one in values] == ([None, None] if expected is None else pytest.approx(list(expected)))


def test_error_of_a_part_is_its_spread_over_fresh_documents(record):
    estimates = []
    for seed in range(150):
        random = np.random.default_rng(seed)
        length = random.integers(50, 200, 300).astype(float)
        base_bits = length * random.normal(0.6, 0.1, 300)
        more = [base_bits + length * random.normal(0.05, 0.02, 300), base_bits]
        sides = [
            answered(random, 300, *one) | {"bits": bits, "bytes": length}
            for one, bits in zip([(0.5, 0.5), (0.9, 0.6)], more, strict=True)
        ]
        estimates.append(measure([detailed(record, sides[0])], detailed(record, sides[1], baseline=True)))
    for kind in ("format_forgetting", "skill_forgetting", "marker_drop", "gold_bpb_delta"):
        assert all(one[f"math.{kind}"].paired for one in estimates)
        spread = np.std([one[f"math.{kind}"].value for one in estimates])
        assert np.mean([one[f"math.{kind}"].stderr for one in estimates]) == pytest.approx(spread, rel=0.12), kind


def test_learning_is_the_mean_over_all_tokens(record):
    parts = {
        "a": {"tokens": 30, "loss": 1.0, "base_loss": 2.0, "kl": 0.1, "reverse_kl": 0.2},
        "b": {"tokens": 10, "loss": 3.0, "base_loss": 2.0, "kl": 0.5, "reverse_kl": 0.6},
    }
    found = learning(record(TUNED, learning=parts))
    assert found == pytest.approx({"loss": 1.5, "gain": 0.5, "kl": 0.2, "reverse_kl": 0.3})


def test_role_without_a_document_in_the_split_is_absent(record):
    one = record({"math": TUNED, "commonsense": TUNED})
    half = {"score": Score(value=0.6, stderr=0.1, n=5)}
    one.halves = {"math": {"search": half}, "commonsense": {"search": half, "report": half}}
    found = measure([one], one, split="report")
    assert "math.value" not in found
    assert found["commonsense.value"].value == 0.6


def test_record_without_halves_counts_whole_in_every_split(record):
    assert measure([record(TUNED)], None, split="report")["math.value"].value == 0.5


def test_halves_are_read_from_either_side(record):
    """A merged model's record, itself a baseline, beside the adapter's, which is none."""
    halves = ["search", "report"] * 4
    adapter, merged = record(BASE, halves=halves), record(TUNED, baseline=True, halves=halves)
    for one, outcomes in ((adapter, BASE), (merged, TUNED)):
        one.halves = {"math": {half: {"score": share(outcomes[place::2])} for place, half in enumerate(["search", "report"])}}
    differences = np.array(TUNED[1::2]) - np.array(BASE[1::2])
    assert measure([merged], adapter, split="report")["math.gain"].stderr == pytest.approx(differences.std(ddof=1) / 2)


def test_document_without_bits_falls_back_to_the_scores_error(record):
    random = np.random.default_rng(0)
    sides = [{"score": np.ones(50), "bits": random.normal(80, 9, 50), "bytes": np.full(50, 100.0)} for _ in range(2)]
    sides[0]["bits"][3] = 70_000.0
    assert measure([detailed(record, sides[0])], detailed(record, sides[1], baseline=True))["math.gold_bpb_delta"].paired
    sides[0]["bits"][3] = math.nan
    made = [
        detailed(record, {**one, "bits": np.nan_to_num(one["bits"])}, baseline=place == 1) for place, one in enumerate(sides)
    ]
    made[0].outcomes = record({"math": sides[0]}).outcomes
    found = measure([made[0]], made[1])["math.gold_bpb_delta"]
    assert not found.paired
    assert found.stderr == pytest.approx(math.hypot(0.01, 0.01))


PERPLEXITY = Scale(form="exp", higher_is_better=False, share=False)


def nats(record, values, words, *, baseline=False, packed=True):
    """A record of a perplexity over documents of so many words."""
    made = record({"notes": {"score": values, "weight": words}}, baseline=baseline, packed=packed, scales={"notes": PERPLEXITY})
    score = aggregate.of_role(pd.DataFrame({"score": values, "weight": words}, dtype=float), PERPLEXITY)
    return made.model_copy(update={"scores": {"notes": score}})


def test_perplexity_is_measured_alike_with_and_without_paired_documents(record):
    base, tuned, words = [30.0, 8.0, 12.0, 50.0], [33.0, 9.0, 11.0, 60.0], [10.0, 4.0, 6.0, 20.0]
    expected = {"value": math.exp(113 / 40), "base": math.exp(100 / 40)}
    expected |= {"gain": expected["base"] - expected["value"], "drop": expected["value"] - expected["base"]}
    expected["forgetting"] = expected["drop"] / expected["base"]
    paired, alone = (
        measure([nats(record, tuned, words, packed=packed)], nats(record, base, words, baseline=True, packed=packed))
        for packed in (True, False)
    )
    for kind, value in expected.items():
        assert paired[f"notes.{kind}"].value == pytest.approx(value)
        assert alone[f"notes.{kind}"].value == pytest.approx(value)
    assert paired["notes.gain"].paired and not alone["notes.gain"].paired
    assert 0 < paired["notes.gain"].stderr < alone["notes.gain"].stderr


def test_lost_and_won_are_the_documents_that_changed_and_add_up_to_the_gain(record):
    found = measure_all([Setting([record(TUNED)], record(BASE, baseline=True))])
    lost, won, gain = (found[f"math.{name}"] for name in ("lost", "won", "gain"))
    assert (lost.value[0], won.value[0], gain.value[0]) == (3 / 8, 1 / 8, -2 / 8)
    assert 0 <= lost.low[0] < 3 / 8 < lost.high[0] <= 1
    assert lost.stderr[0] == pytest.approx(np.sqrt(3 / 8 * 5 / 8 / 7))
    assert lost.paired[0]


def test_lost_of_replicates_is_their_mean_and_a_base_loses_nothing(record):
    base = record(BASE, baseline=True)
    found = measure_all([Setting([record(TUNED), record(BASE)], base), Setting([base], base)])["math.lost"]
    assert found.value.tolist() == [3 / 16, 0.0]
    assert (found.low[1], found.known.all()) == (0.0, True)
    assert found.high[1] > 0  # eight documents that keep their answers do not show that none would be lost


def test_lost_of_an_error_rate_is_the_documents_that_became_worse(record):
    scales = {"math": Scale(higher_is_better=False)}
    found = measure([record(TUNED, scales=scales)], record(BASE, baseline=True, scales=scales))
    assert (found["math.lost"].value, found["math.won"].value, found["math.gain"].value) == (1 / 8, 3 / 8, 2 / 8)


def test_lost_is_unknown_for_other_documents_and_for_scores_that_are_no_shares(record):
    other = measure([record(TUNED, hashes=[f"x{i}" for i in range(8)])], record(BASE, baseline=True))
    scales = {"math": Scale(share=False)}
    values = measure([record([0.5] * 8, scales=scales)], record([1.5] * 8, baseline=True, scales=scales))
    assert "math.lost" not in other.keys() | values.keys()


CHOICES = [4, 4, 2, 4, 4, 2, 4, 4]


def test_adjusted_changes_leave_out_what_guessing_would_change(record):
    tuned, base = (
        record({"math": {"score": one, "choices": CHOICES}}, baseline=one is BASE)
        for one in ([*TUNED[:4], 0, *TUNED[5:]], BASE)
    )
    found = measure([tuned], base)
    # both are wrong in the third of two choices and in the fifth of four
    assert found["math.lost_adjusted"].value == pytest.approx(3 / 8 - (1 + 1 / 3) / 8)
    assert found["math.won_adjusted"].value == 0.0
    assert found["math.lost_adjusted"].paired


@pytest.mark.parametrize(
    ("before", "after", "lost", "won"), [(0.5, 0.5, 0.0, 0.0), (0.6, 0.3, 0.3, 0.0), (0.0, 0.0, 0.0, 0.0), (0.3, 0.6, 0.0, 0.3)]
)
def test_adjusted_changes_of_models_that_know_or_guess_are_the_changes_of_what_they_know(record, before, after, lost, won):
    """Both models know the first documents, one of them more; of four choices the rest is guessed, three in four wrong."""
    random, n = np.random.default_rng(0), 40_000
    place = np.arange(n) / n
    scores = [(place < known) | (random.random(n) < 1 / 4) for known in (after, before)]
    tuned, base = (record({"math": {"score": one, "choices": [4] * n}}, baseline=side) for side, one in enumerate(scores))
    found = measure_all([Setting([tuned], base)])
    for name, changed in (("lost", lost), ("won", won)):
        adjusted, plain = found[f"math.{name}_adjusted"], found[f"math.{name}"]
        assert 0 <= adjusted.low[0] <= 0.75 * changed <= adjusted.high[0]
        assert plain.low[0] > 0.75 * changed, "guesses that differ are no change of knowledge"


def test_trial_that_loses_nothing_has_lost_nothing_beyond_chance_whatever_it_wins(record):
    base = record({"math": {"score": [0, 0, 0, 1], "choices": [4] * 4}}, baseline=True)
    trials = [record({"math": {"score": [1] * won + [0] * (3 - won) + [1], "choices": [4] * 4}}) for won in range(4)]
    found = measure_all([Setting([one], base) for one in [*trials, base]])["math.lost_adjusted"]
    assert found.value.tolist() == [0.0] * 5


def test_adjusted_changes_need_the_number_of_choices(record):
    assert "math.lost_adjusted" not in measure([record(TUNED)], record(BASE, baseline=True))


def test_values_without_errors_hold_lost_documents_where_they_are_named(record):
    settings = [Setting([record(TUNED)], record(BASE, baseline=True))]
    assert "math.lost" not in measure_all(settings, errors=False)
    assert measure_all(settings, errors=False, only=["math.lost"])["math.lost"].value == 3 / 8
