"""The report: a self-contained page whose numbers are all in an export."""

import dataclasses
import json
import re
import shutil
import subprocess

import numpy as np
import pandas as pd
import pytest
from markupsafe import Markup

from analysis.explore.failure_signatures import PAPER, SIGNATURES, flags, verdicts
from analysis.export.files import export
from analysis.report import build
from analysis.report.build import PAGES, report, write_report
from analysis.report.findings import notices
from analysis.results.load import load
from tests.factories.sweeps import FOUR, NASTY, OBJECTIVES, SITUATIONS, Builder, Page, oom
from trials.ledger.record import Failure, TrialRecord

NUMBER = re.compile(r"\d[\d,]*(\.\d+)?(e-?\d+)?")
KNOWN = {"95", "1", "99", "0.62", "60.77", "61.20", "43", "10,042", "59.20", "3.2", "1.1", "80", "10", "0.001", "0"}
"""Numbers of the page's own sentences: confidence, the paper's caveats and bounds."""


class Three(Builder):
    roles = ("commonsense", "math", "knowledge")


@pytest.fixture
def no_figures(monkeypatch):
    """For tests of the texts alone: the figures take most of a report's time."""
    monkeypatch.setattr(build, "FIGURES", {})
    monkeypatch.setattr(build, "front_svg", lambda *_: Markup(""))


@pytest.fixture
def three(tmp_path):
    return Three(tmp_path).baseline((20, 40, 30))


def words(text):
    """What a reader sees, without pictures, style and script."""
    return " ".join(" ".join(Page(re.sub(r"<(style|script|svg).*?</\1>", " ", text, flags=re.DOTALL)).words).split())


def rewrite(builder, key, change):
    """Changes the frame of a record's documents."""
    record, documents = builder.ledger.read(key), builder.ledger.documents(key)
    builder.ledger.write(record, change(documents))


def mixed_bases(b):
    b.baseline().add((26, 37))
    other = b.spec(9).model_copy(update={"base": b.spec(9).base.model_copy(update={"model": "org/other"})})
    base = other.baseline()
    b.record(base, (10, 30))
    b.record(other, (15, 29))
    b.trials.append({"number": 1, "key": other.key, "baseline": base.key, "params": {"lora.rank": 9}})
    return b


def missing_role(b):
    b.baseline().add((26, 37)).add((24, 40))
    key = b.trials[1]["key"]
    record = b.ledger.read(key)
    b.ledger.write(record.model_copy(update={"scores": {"commonsense": record.scores["commonsense"]}}), None)
    return b


PAGES_OF = {
    "empty": lambda b: b,
    "one trial": lambda b: b.baseline().add((20, 40)),
    "all failed": lambda b: b.baseline().add(failure=oom()).add(failure=oom()),
    "none feasible": lambda b: b.baseline().add((40, 10)).add((41, 9)),
    "mixed bases": mixed_bases,
    "missing role": missing_role,
    "no documents": lambda b: b.baseline().add((26, 37), documents=False),
    "derived and invalid": lambda b: b.baseline().add((26, 37)).invalid().add(),
}


PAGED = [
    pytest.param(name, objectives, marks=[pytest.mark.slow] * (objectives != "two"))
    for name in PAGES_OF
    for objectives in ("one", "two", "four")
]
PAGED += [(name, "turned") for name in SITUATIONS if name not in PAGES_OF and name != "long front"]


@pytest.mark.usefixtures("no_figures")
def test_gpu_hours_need_a_gpu(builder):
    builder.baseline().add((26, 37))
    assert "GPU-hours" not in report(builder.load(spent=[3600.0, 1800.0]))
    for record in (sweep := builder.load(spent=[3600.0, 1800.0])).records.values():
        record.hardware["gpu"] = "NVIDIA L4"
    assert "GPU-hours spent" in report(sweep)


@pytest.mark.parametrize(("situation", "objectives"), PAGED)
def test_every_sweep_has_a_self_contained_page_with_a_headline(builder, situation, objectives):
    text = report((SITUATIONS | PAGES_OF)[situation](builder).load(objectives=OBJECTIVES[objectives]))
    page = Page(text)
    assert re.search(r'class="headline">[^<]+\.</p>', text)
    assert all(link.startswith(("data:", "#")) for link in page.links)
    assert not re.search(r"https?:|//[a-z]|url\((?!#)|@import", re.sub(r"data:image/png;base64,[\w+/=]+|http-equiv", "", text))
    assert "nan" not in words(text).split()
    targets = set(re.findall(r'id="([^"]+)"', text))
    assert {link[1:] for link in page.links if link.startswith("#")} <= targets


def test_all_of_several_objectives_are_drawn(builder):
    text = report(builder.baseline().add((26, 37)).add((24, 40)).load(objectives=FOUR))
    assert "All objectives at once" in words(text)
    assert "The front is one in 4 objectives" in text


@pytest.mark.usefixtures("no_figures")
def test_page_has_documents_lost_and_won_with_the_exact_test(builder):
    builder.baseline((20, 40)).add((26, 37))
    key, base = builder.trials[0]["key"], builder.base.key
    rewrite(builder, base, lambda d: d.assign(question="What is " + d["doc_hash"] + "?", response="base says", target="gold"))
    rewrite(builder, key, lambda d: d.assign(response="tuned says"))
    text = words(report(builder.load()))
    assert "commonsense: 0 lost, 6 won of 50 documents, exact sign test (McNemar) p = 0.031" in text
    assert "math: 3 lost, 0 won of 50 documents, exact sign test (McNemar) p = 0.25" in text
    for quoted in ("What is commonsense20?", "What is math39?", "base says", "tuned says", "gold"):
        assert quoted in text


@pytest.mark.usefixtures("no_figures")
def test_only_the_reported_half_is_shown(builder):
    builder.baseline((20, 40)).add((26, 37))

    def halved(documents):
        half = np.where(np.arange(len(documents)) % 2 == 0, "report", "search")
        return documents.assign(half=half, target="target of " + documents["doc_hash"])

    for key in (builder.base.key, builder.trials[0]["key"]):
        rewrite(builder, key, halved)
    text = words(report(builder.load(documents="half")))
    assert "0 lost, 3 won of 25 documents" in text
    assert "target of commonsense20" in text and "target of commonsense21" not in text


@pytest.mark.usefixtures("no_figures")
@pytest.mark.parametrize("halves", [True, False])
def test_probabilities_are_explained_beside_the_intervals(builder, halves):
    builder.baseline().add((26, 37)).add((24, 40))
    page = report(builder.load(documents="half" if halves else "all"))
    assert "P(feasible): the probability that it keeps every constraint." in page
    said = page.partition("Probabilities come from all trials")[2].partition("</p>")[0]
    assert "a probability near 0 or 1 may stand beside an interval that crosses the bound" in said
    assert ("both halves" in said, "and the report half" in said) == (halves, halves)
    assert "P(feasible)" not in report(builder.load(constraints=[]))


def test_texts_are_inert_and_long_ones_are_shortened(builder):
    builder.baseline((20, 40)).add((26, 37))
    builder.trials[0]["params"]["train.note"] = NASTY
    long = f"{NASTY} " * 3_000
    rewrite(builder, builder.base.key, lambda d: d.assign(question=long, response=NASTY, target="</details></script>"))
    text = report(builder.load(name=NASTY))
    assert Page(text).tags.count("script") == 1
    assert "<script>alert" not in text and "</details></script>" not in text
    assert len(re.sub(r"data:image/png;base64,[\w+/=]+", "", text)) < 500_000


@pytest.mark.usefixtures("no_figures")
def test_equal_failures_are_listed_once(builder):
    failures = [Failure(kind="ValueError", message="the same", traceback="Traceback")] * 3
    builder.baseline()
    for failure in failures:
        builder.add(failure=failure)
    text = report(builder.load())
    assert text.count('<details class="failure"') == 1
    assert "trial 0, trial 1, trial 2" in words(text)


@pytest.mark.usefixtures("no_figures")
def test_failure_signatures_are_flagged_by_name(three):
    sweep = three.add((22, 2, 12)).add((22, 39, 30)).add((22, 8, 24)).load(constraints=[])
    found = verdicts(sweep)
    assert found["math collapse"].tolist() == ["yes", "no", "cannot tell"]
    assert found["knowledge loss"].tolist() == ["yes", "no", "cannot tell"]
    assert [flags(row) for _, row in found.iterrows()] == [
        "math collapse, knowledge loss",
        "",
        "math collapse?, knowledge loss?",
    ]
    text = words(report(sweep))
    assert "1 trial (#0) shows math collapse; 1 more may" in text
    assert "math collapse, knowledge loss" in text


@pytest.mark.usefixtures("no_figures")
def test_paper_s_table_has_its_caveats(three):
    text = words(report(three.add((26, 37, 29)).load()))
    for shown in (
        "Llama 3.2 1B 2,000 60.77 61.20 above +88 +13",
        "TinyLlama 1.1B 50,000 59.20 59.26",
        "probably the Instruct",
        "0.62",
    ):
        assert shown in text
    assert PAPER[0]["commonsense.value"] - PAPER[0]["commonsense.base"] == pytest.approx(0.0043)
    assert [one.bound for one in SIGNATURES] == [0.8, 0.1]


@pytest.mark.usefixtures("no_figures")
def test_number_of_pages_is_limited_and_reported(builder):
    builder.baseline()
    for number in range(PAGES + 4):
        builder.add((21 + number, 48 - number))
    text = report(builder.load(constraints=[]))
    assert text.count('<details class="point"') == PAGES
    assert f"{PAGES} of the front's {PAGES + 4} points have a page here" in words(text)


@pytest.fixture
def many(builder):
    """10,000 trials, copies of a few."""
    sweep = builder.baseline().add((26, 37)).add((24, 40)).add((23, 38)).add((40, 10)).add(failure=oom()).load()
    rows = pd.concat([sweep.trials] + [sweep.trials.iloc[2:]] * 3_332, ignore_index=True)
    rows["number"] = np.arange(len(rows))
    for name in ("commonsense.gain", "math.forgetting"):
        rows[name] += np.where(rows["on_front"], 0, np.random.default_rng(0).normal(0, 0.02, len(rows)))
    return dataclasses.replace(sweep, trials=rows)


@pytest.mark.slow
def test_page_of_ten_thousand_trials_stays_small(many):
    text = report(many)
    assert len(many.trials) > 10_000
    assert len(text.encode()) < 15_000_000
    assert text.count('<tr class="') >= len(many.trials)


def numbers(value):
    """All numbers in JSON values."""
    if isinstance(value, dict):
        value = [*value.values()]
    if isinstance(value, list):
        return [number for one in value for number in numbers(one)]
    return [float(value)] if isinstance(value, (int, float)) and np.isfinite(value) else []


def written(value):
    """Every way in which the page may write a number of an export: rounded, in percent, as a time, as a size."""
    found = {f"{value:g}", f"{value:.4g}", f"{value:.3g}", f"{value:,.0f}"}
    found |= {re.sub(r"\.?0*e-0", "e-", f"{value:.{digits}e}") for digits in (0, 1, 2)}
    for scaled in (value, 100 * value, value / 3600, value / 1e6, value / 1e9):
        found |= {f"{scaled:.{digits}f}" for digits in range(4)}
    minutes, seconds = divmod(round(abs(value)), 60)
    found |= {str(minutes), f"{seconds:02d}", f"{minutes // 60}", f"{minutes % 60:02d}"}
    return {text.lstrip("-") for text in found}


def test_every_number_of_the_page_is_in_an_export(three):
    three.add((26, 37, 29)).add((24, 40, 28)).add((40, 5, 3)).add(failure=Failure(kind="E", message="bad", traceback=""))
    path = write_report(three.load())
    sweep = load(path.parent)
    exported = json.loads(path.with_name("report.json").read_text(encoding="utf-8"))
    table = sweep.trials.select_dtypes("number")
    known = set(KNOWN) | {
        text
        for value in {*numbers(exported), *numbers(table.to_numpy(dtype=float).ravel().tolist())}
        for text in written(value)
    }
    text = path.read_text(encoding="utf-8")
    for hidden in (r"<pre.*?</pre>", r'<details class="flip.*?</details>', r'<td[^>]*class="key".*?</td>', r"<code>.*?</code>"):
        text = re.sub(hidden, " ", text, flags=re.DOTALL)
    shown = [bare for word in words(text).split() if NUMBER.fullmatch(bare := word.strip("(),;:.%+\N{MINUS SIGN}"))]
    counts = {str(len(rows)) for _, rows in sweep.trials.groupby("state")} | {
        str(len(sweep.trials)),
        str(sweep.budget),
        str(len(sweep.records)),
        *(str(record.spec.data.samples) for record in sweep.records.values()),  # of spec.yaml
    }
    versions = {value for record in sweep.records.values() for value in record.versions.values()}
    assert len(shown) > 100
    assert not sorted({one for one in shown if one not in known | counts | versions and one.replace(",", "") not in known})


def test_report_json_has_the_numbers_of_the_pages(three):
    path = write_report(three.add((26, 37, 29)).load())
    found = json.loads(path.with_name("report.json").read_text(encoding="utf-8"), parse_constant=pytest.fail)
    (one,) = found["points"]
    assert one["flips"][0] == {"role": "commonsense", "documents": 50, "lost": 0, "won": 6, "p": pytest.approx(2 / 2**6)}
    assert found["schema"] == 1 and found["cost"]["trials"] == 1
    assert [one["name"] for one in found["signatures"]] == ["math collapse", "knowledge loss"]


def test_curves_of_loss_and_kl_are_on_the_page(builder):
    builder.baseline().add((26, 37), losses=[(1, 3.0), (2, 2.0), (3, 1.5)], kl=[(1, 0.1), (3, 0.3)])
    text = report(builder.load())
    assert text.count('<svg class="figure curve') == 2
    assert "KL from the base (nats per token)" in words(text)


@pytest.mark.usefixtures("no_figures")
def test_failed_record_has_no_page(builder):
    builder.baseline()
    spec = builder.spec(1)
    builder.ledger.write(TrialRecord(key=spec.key, state="failed", spec=spec, failure=oom()))
    assert 'class="point"' not in report(builder.add().load())


def test_browser_runs_the_page_without_an_error(builder, tmp_path):
    browser = next((found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None)
    if browser is None:
        pytest.skip("no Chromium here: the page's script is not tried")
    path = write_report(builder.baseline().add((26, 37)).add((24, 40)).add(failure=oom()).load())
    options = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--enable-logging=stderr",
        "--v=0",
        f"--user-data-dir={tmp_path / 'profile'}",
    ]
    done = subprocess.run(
        [browser, *options, "--dump-dom", f"file://{path}"], capture_output=True, text=True, timeout=120, check=True
    )
    assert "CONSOLE" not in done.stderr
    assert '<input type="search"' in done.stdout and "3 of 3" in done.stdout
    assert 'aria-pressed="false"' in done.stdout and 'class="tip"' in done.stdout


@pytest.fixture
def finished(builder):
    """Base 20 and 40 of 50. Trials: 0 and 1 on the front, 2 dominated, 3 beyond the constraint, 4 failed, 5 pending."""
    failure = Failure(kind="OutOfMemoryError", message=NASTY, traceback=f"Traceback\n{NASTY}")
    return builder.baseline().add((26, 37)).add((24, 40)).add((23, 38)).add((40, 10)).add(failure=failure).add()


def test_report_escapes_every_text(finished):
    finished.trials[0]["params"]["train.note"] = NASTY
    sweep = finished.load(name=NASTY)
    (finished.folder / "sweep.yaml").write_text(NASTY, encoding="utf-8")
    sweep = load(finished.folder)
    text = write_report(sweep).read_text(encoding="utf-8")
    page = Page(text)
    assert page.tags.count("script") == 1
    assert "<script>alert" not in text
    assert "".join(page.words).count('<script>alert("1")</script>') >= 5
    (html,) = export(sweep, ["html"])
    assert "script" not in Page(html.read_text(encoding="utf-8")).tags


@pytest.mark.usefixtures("no_figures")
def test_report_has_failures_baselines_times_versions_config_and_command(finished):
    words = " ".join("".join(Page(report(finished.load())).words).split())
    assert "trial 4 OutOfMemoryError" in words
    assert f"{finished.base.key}" in words
    assert "torch 2.9.0" in words
    assert "name: quickstart" in words
    assert "evaluate 5 3.5 s 3.5 s 17.5 s" in words
    assert f"python -m trials {finished.ledger.folder(finished.trials[0]['key'])}/spec.yaml" in words


@pytest.mark.usefixtures("no_figures")
def test_report_warns_of_a_low_base_and_of_mixed_hardware(builder):
    sweep = builder.baseline((20, 3)).add((25, 3)).add((26, 3), hardware={"device": "H200"}).load()
    first, second = notices(sweep)
    assert "read the drop, not the forgetting rate" in first
    assert "2 kinds of hardware or numbers of threads" in second


@pytest.mark.usefixtures("no_figures")
def test_paper_stands_beside_its_own_roles_alone(three, tmp_path):
    assert 'id="paper"' in report(three.add((26, 37, 30)).load())

    class Own(Builder):
        roles = ("commonsense", "places")

    wanted = [{"metric": "places.gain", "direction": "maximize"}, {"metric": "commonsense.drop", "direction": "minimize"}]
    own = Own(tmp_path / "own").baseline((20, 40)).add((26, 37)).load(objectives=wanted, constraints=[])
    assert "#paper" not in report(own) and 'id="paper"' not in report(own)
