"""Two sweeps beside each other: storages made up, draws of their trials' true values made up as well."""

import json
import math
import re

import numpy as np
import pytest

from analysis.explore.compare import as_dict, compare, verdict
from analysis.report.compare_page import fronts_figure, page, svg, write
from tests.factories.sweeps import FOUR, Builder
from trials.errors import InputError
from trials.ledger.outcomes import Scale
from trials.ledger.record import Score

DRAWS = 400
ONE = [{"metric": "commonsense.gain", "direction": "maximize"}]


def sweep_of(root, *right, draws=DRAWS, spread=0.0, **manifest):
    """A sweep whose trials got `right` of the documents. One noise moves all trials alike, as shared documents do; `spread` is
    what each has of its own."""
    builder = Builder(root).baseline()
    for one in right:
        builder.add(one)
    sweep = builder.load(**manifest)
    values = sweep.trials[list(sweep.judged)].to_numpy(dtype=float)
    shared = 0.02 * np.random.default_rng(0).standard_normal((DRAWS, 1, 1))
    own = spread * np.random.default_rng(abs(hash(right)) % 1000).standard_normal((DRAWS, *values.shape))
    object.__setattr__(sweep, "draws", (values[None] + shared + own)[:draws])
    object.__setattr__(sweep, "base_draws", sweep.base_draws[:draws])
    return sweep


@pytest.fixture
def equal(tmp_path):
    right = [(26, 39), (30, 37)]
    return sweep_of(tmp_path / "a", *right), sweep_of(tmp_path / "b", *right)


def test_equal_sweeps_have_ratio_1_in_every_draw(equal):
    found = compare(*equal)
    assert (found.ratio, found.corrected, found.interval, found.probability) == (1.0, 1.0, (1.0, 1.0), 0.5)
    assert found.coverage == (0.0, 0.0)
    assert "there is no difference" in verdict(found)
    assert found.warnings == ()


def test_fronts_without_a_volume_have_no_ratio(tmp_path):
    """0 / 0 is not 1.000."""
    nothing = [sweep_of(tmp_path / name, (20, 40)) for name in "ab"]
    found = compare(*nothing)
    assert found.volumes == (0.0, 0.0)
    assert (found.ratio, found.corrected, found.interval, found.probability) == (None, None, None, None)
    assert "1.000" not in page(found)
    assert "cannot tell" in verdict(found)


def test_reference_of_an_error_is_the_worst_base_s(tmp_path):
    """The gain over the worse base adds volume; for an error the worst is the greatest."""
    sweeps, scales = [], {"math": Scale(form="exp", higher_is_better=False, share=False)}
    for name, perplexity in (("a", 12.0), ("b", 10.0)):
        builder = Builder(tmp_path / name).baseline().add((26, 25), scales=scales)
        base = builder.ledger.read(builder.base.key)
        scores = base.scores | {"math": Score(value=perplexity, stderr=0.5, n=50)}
        builder.ledger.write(base.model_copy(update={"scores": scores, "scales": scales}))
        sweeps.append(builder.load(objectives=[{"metric": "math.value", "direction": "minimize"}], constraints=[]))
    assert compare(*sweeps).reference == (12.0,)


def test_better_sweep_is_named_in_either_order(tmp_path):
    worse = sweep_of(tmp_path / "a", (22, 38), (24, 37), spread=0.005, name="plain")
    better = sweep_of(tmp_path / "b", (32, 40), (36, 39), spread=0.005, name="replay")
    found, reverse = compare(worse, better), compare(better, worse)
    assert found.interval[0] > 1 > reverse.interval[1]
    assert found.ratio == pytest.approx(1 / reverse.ratio)
    assert found.coverage == (1.0, 0.0) == reverse.coverage[::-1]
    assert found.probability == 1.0 == 1 - reverse.probability
    for one in (found, reverse):
        assert verdict(one).startswith("The front of replay is the better one")


def test_difference_within_noise_is_undecided(tmp_path):
    a = sweep_of(tmp_path / "a", (26, 39), spread=0.1)
    b = sweep_of(tmp_path / "b", (27, 39), spread=0.1)
    found = compare(a, b)
    assert found.interval[0] < 1 < found.interval[1]
    assert found.ratio > 1
    assert verdict(found).startswith("Cannot tell which front is better")


def test_shared_noise_does_not_widen_the_interval(tmp_path):
    """Draws are paired by their index: the same noise in both cancels."""
    a, b = sweep_of(tmp_path / "a", (26, 40)), sweep_of(tmp_path / "b", (34, 40))
    paired = compare(a, b).interval
    object.__setattr__(b, "draws", b.draws[::-1].copy())
    apart = compare(a, b).interval
    assert paired[1] - paired[0] < 0.8 * (apart[1] - apart[0])


def test_volumes_are_measured_from_one_reference_point(tmp_path):
    a = sweep_of(tmp_path / "a", (30, 39), constraints=["math.forgetting <= 0.10"])
    b = sweep_of(tmp_path / "b", (30, 39), constraints=["math.forgetting <= 0.50"])
    found = compare(a, b)
    assert found.reference == compare(b, a).reference == (0.0, 0.10)
    assert found.ratio == 1.0
    assert a.hypervolume != b.hypervolume
    assert any("The constraints differ" in one for one in found.warnings)


def test_coverage_counts_dominated_points_without_equal_ones(tmp_path):
    a = sweep_of(tmp_path / "a", (25, 40), (30, 38))
    b = sweep_of(tmp_path / "b", (25, 40), (32, 39))
    assert compare(a, b).coverage == (0.5, 0.0)


def test_other_objectives_are_refused_and_another_order_is_not(tmp_path):
    a = sweep_of(tmp_path / "a", (25, 40))
    b = sweep_of(tmp_path / "b", (25, 40), objectives=ONE)
    with pytest.raises(InputError) as caught:
        compare(a, b)
    assert "other objectives" in str(caught.value)
    assert "\n" not in str(caught.value)
    turned = sweep_of(tmp_path / "c", (25, 40), objectives=[FOUR[1], FOUR[0]])
    assert compare(a, turned).ratio == 1.0


@pytest.mark.parametrize("objectives", [ONE, FOUR[:2], FOUR], ids=["one", "two", "four"])
@pytest.mark.parametrize("right", [([], []), ([(26, 39)], []), ([(26, 10)], [(26, 39)]), ([(26, 39)], [(26, 39), (30, 38)])])
def test_every_pair_of_sweeps_gives_a_page_pictures_and_json(tmp_path, objectives, right):
    a, b = (sweep_of(tmp_path / name, *of, objectives=objectives) for name, of in zip("ab", right, strict=True))
    found = compare(a, b)
    files = write(found, tmp_path / "out")
    assert [file.name for file in files] == ["compare.json", "fronts.png", "fronts.svg", "compare.html"]
    told = json.loads((tmp_path / "out" / "compare.json").read_text())
    assert told["verdict"] == verdict(found)
    assert [len(told[side]["front"]) for side in "ab"] == [len(a.front), len(b.front)]
    if not all(len(sweep.front) for sweep in (a, b)):
        assert "nothing to compare" in told["verdict"]
    text = re.sub('data:image/png;base64,[^"]*', "", (tmp_path / "out" / "compare.html").read_text())
    assert "://" not in text
    assert not re.search(r"\bnan\b", text)


def test_without_draws_the_ratio_has_no_interval(tmp_path):
    a, b = (sweep_of(tmp_path / name, (26, 39), draws=0) for name in "ab")
    found = compare(a, b)
    assert (found.ratio, found.interval, found.probability) == (1.0, None, None)
    assert "cannot be told" in verdict(found)
    unknown = sweep_of(tmp_path / "c", (26, 39))
    unknown.draws[:] = math.nan
    assert compare(a, unknown).interval is None
    assert compare(a, sweep_of(tmp_path / "d")).interval is None
    assert json.loads(json.dumps(as_dict(found), allow_nan=False))["interval"] is None


def test_front_without_volume_in_a_draw_leaves_the_ratio_unbounded(tmp_path):
    a, b = sweep_of(tmp_path / "a", (21, 40)), sweep_of(tmp_path / "b", (30, 40))
    found = compare(a, b)
    assert found.interval[1] == math.inf
    assert "to any)" in verdict(found)
    assert as_dict(found)["interval"][1] is None
    nothing = sweep_of(tmp_path / "c", (20, 40))
    assert compare(nothing, b).ratio is None
    assert as_dict(compare(nothing, b))["ratio"] is None


def test_warnings_name_the_differences(tmp_path):
    class Other(Builder):
        def spec(self, rank, rate=2e-4, seed=0):
            spec = super().spec(rank, rate, seed)
            base = spec.base.model_copy(update={"model": "another"})
            role = spec.eval["math"].model_copy(update={"shots": 3})
            return spec.model_copy(update={"base": base, "eval": spec.eval | {"math": role}})

    a = sweep_of(tmp_path / "a", (26, 39))
    b = Other(tmp_path / "b").baseline().add((26, 39), hardware={"gpu": "A100"}, versions={"torch": "3.0"}).load(name="other")
    object.__setattr__(b, "draws", a.draws)
    object.__setattr__(b, "base_draws", a.base_draws)
    told = " ".join(compare(a, b).warnings)
    for said in (
        "other documents or tasks",
        "other bases",
        "other hardware",
        "other versions",
        "A100",
        "another",
        "math shots 3",
    ):
        assert said in told


def test_equal_comparisons_are_equal_bytes(equal):
    assert svg(fronts_figure(compare(*equal))) == svg(fronts_figure(compare(*equal)))
    assert page(compare(*equal)) == page(compare(*equal))
