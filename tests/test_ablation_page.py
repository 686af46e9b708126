"""The written answers: what the page tells is in the JSON, nothing comes from outside, nothing unknown looks like a number."""

import json
import math
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

from analysis.ablation import told_value
from analysis.ablation_page import label, write
from analysis.answer import Effect
from orchestrator.ablations import Ablations
from tests.worlds import Model, luck, planned, run

NASTY = "50 % of $x_1$ & <b>more</b> #1 {a}^b"


def world(spec):
    if spec.is_baseline:
        return Model()
    rows = spec.derive.samples or spec.data.rows
    lost = min(rows / 400, 1.0) * 0.5 + luck(spec, 0.02)
    return Model(marker=0.95 - lost, skill=0.6, bits={"digit": 0.2 * lost, "format": lost}, kl=1.0, gain=1.0)


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    found = []
    for name in ("f2", "paper"):
        one = planned(name)
        answer = run(one, world, tmp_path_factory.mktemp(name), documents=60)
        found.append(replace(answer, figures=one.figures, table=one.ablation.table))
    return found


@pytest.fixture(scope="module")
def folder(answers, tmp_path_factory):
    place = tmp_path_factory.mktemp("page")
    write(answers, place, "The paper's ablations on micro")
    return place


class Page(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.sources, self.texts, self._skipped = [], [], 0
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.sources += [value for name, value in attributes if name in ("src", "href", "srcset") and value]
        self._skipped += tag in ("style", "script")

    def handle_endtag(self, tag):
        self._skipped -= tag in ("style", "script")

    def handle_data(self, data):
        if not self._skipped:
            self.texts.append(data)


def test_an_answer_leaves_a_page_and_markdown_json_latex_and_figures(answers, folder):
    for answer in answers:
        names = {path.name.removeprefix(label(answer)) for path in folder.glob(f"{label(answer)}*")}
        assert {".md", ".json", ".tex"} <= names
        assert {f"-{one.name}.png" for one in answer.figures} <= names and {
            f"-{one.name}.svg" for one in answer.figures
        } <= names
    assert (folder / "index.html").is_file()


def test_the_page_needs_nothing_from_outside(folder):
    page = Page((folder / "index.html").read_text())
    assert page.sources and all(one.startswith(("data:", "#")) for one in page.sources)


def test_every_effect_on_the_page_is_in_the_json(answers, folder):
    page = " ".join(Page((folder / "index.html").read_text()).texts)
    for answer in answers:
        told = json.loads((folder / f"{label(answer)}.json").read_text())
        assert {one["name"] for one in told["effects"]} == {one.name for one in answer.effects}
        for one in told["effects"]:
            numbers = {name: one[name] if one[name] is not None else math.nan for name in ("value", "low", "high", "stderr")}
            again = Effect(one["name"], one["text"], one["unit"], **numbers, per_seed=(), documents=one["documents"])
            assert told_value(again) in page


def test_the_papers_numbers_stand_beside_ours(folder):
    page = " ".join(Page((folder / "index.html").read_text()).texts)
    assert "the paper" in page and "60.8" in page and "here, 3 seeds" in page


def test_what_is_unknown_is_told_in_words(answers, tmp_path):
    nothing = Effect("x", "an effect", "points", *[math.nan] * 4, per_seed=(), documents=0)
    verdict = answers[0].verdicts[0]
    lost = replace(verdict, rulings=(replace(verdict.rulings[0], effect=nothing, holds=None, power=None, seeds=None),))
    write([replace(answers[0], verdicts=(lost,), effects=(nothing,))], tmp_path, "t")
    for path in tmp_path.iterdir():
        if path.suffix in (".html", ".md", ".tex", ".json"):
            text = "".join(Page(path.read_text()).texts) if path.suffix == ".html" else path.read_text()
            assert not re.search(r"\bnan\b|\bNone\b|\bNaN\b", text), path.name


def test_text_stays_text_in_latex_markdown_and_html(answers, tmp_path):
    effect = replace(answers[0].effects[0], text=NASTY)
    verdict = replace(answers[0].verdicts[0], rulings=(replace(answers[0].verdicts[0].rulings[0], effect=effect),))
    write([replace(answers[0], verdicts=(verdict,), effects=(effect,))], tmp_path, NASTY)
    tex = (tmp_path / "f2-micro.tex").read_text()
    assert r"50 \% of \$x\_1\$ \& \textless{}b\textgreater{}" in tex
    assert "<b>more" not in (tmp_path / "index.html").read_text()
    assert "<b>more" not in (tmp_path / "f2-micro.md").read_text()


def test_equal_answers_are_equal_files(answers, folder, tmp_path):
    write(answers, tmp_path, "The paper's ablations on micro")
    for path in folder.iterdir():
        assert path.read_bytes() == (tmp_path / path.name).read_bytes(), path.name


def test_the_adapter_as_trained_stands_at_all_its_rows(answers):
    from analysis.ablation_figure import draw

    (panel, *_) = draw(answers[0], answers[0].figures[0]).axes
    places = np.concatenate([line.get_xdata() for line in panel.lines if len(line.get_xdata()) > 2])
    assert sorted(places) == [25, 50, 100, 200, 500]


def test_every_figure_of_every_ablation_is_of_metrics_and_settings_that_there_are():
    ablations = Ablations()
    for name in ablations.names:
        for one in ablations.plan(name, "micro"):
            paths = {*one.config.paths(), "data.samples"}
            for figure in one.figures:
                assert figure.kind == "layers" or {figure.x, *figure.by} <= paths | {"learning.gain", "learning.kl"}, (
                    figure.name
                )
