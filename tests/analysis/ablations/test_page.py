"""The written answers of ablations."""

import base64
import dataclasses
import hashlib
import json
import re
from html.parser import HTMLParser

import pytest

from analysis.ablations import words
from analysis.ablations.answer import Ruling, Verdict
from analysis.ablations.page import data, latex, text, write
from analysis.ablations.words import ruling_words
from tests.factories.ablation_sweeps import BY_SOURCE, DOSE, HALVED, KEPT, MISSING, SHARE, asked, figured, swept, verdicts
from tests.factories.sweeps import NASTY


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    sweep = swept(tmp_path_factory.mktemp("answers") / "runs", [*DOSE, ({"data.replay.share": 0.7}, None)])
    whole = asked(
        sweep, BY_SOURCE, verdicts=verdicts(), effects=(HALVED, KEPT, SHARE, MISSING), table=("math.drop", "math.value")
    )
    whole = dataclasses.replace(whole, why="Because.", design="So.", caveats=("Mind this.",))
    return [dataclasses.replace(whole, name="paper", title="Paper"), dataclasses.replace(whole, name="q1", title="Mixes")]


@pytest.fixture(scope="module")
def written(answers, tmp_path_factory):
    """The files of the answers; the page is the first."""
    return write(answers, tmp_path_factory.mktemp("written") / "out", "Ablations")


class Page(HTMLParser):
    """The texts that a reader sees, and every address."""

    def __init__(self, html):
        super().__init__()
        self.texts, self.addresses, self._within = [], [], []
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        if tag not in ("meta", "link", "img", "source"):
            self._within.append(tag)
        self.addresses += [(tag, value) for name, value in attributes if name in ("src", "srcset", "href", "data", "action")]

    def handle_endtag(self, tag):
        while self._within and self._within.pop() != tag:
            pass

    def handle_data(self, data):
        if not {"style", "script"} & set(self._within):
            self.texts.append(data)


def leaves(value):
    if isinstance(value, dict):
        for key, one in value.items():
            yield key
            yield from leaves(one)
    elif isinstance(value, list):
        for one in value:
            yield from leaves(one)
    else:
        yield value


def shown_forms(folder):
    """Every rounded form of the numbers in the JSON files."""
    found = [leaf for path in folder.glob("*.json") for leaf in leaves(json.loads(path.read_text()))]
    values = [leaf for leaf in found if isinstance(leaf, (int, float)) and not isinstance(leaf, bool)]
    texts = " ".join(leaf for leaf in found if isinstance(leaf, str))
    shown = set(re.findall(r"\d+(?:[.,]\d+)*", texts)) | {f"{value:,}" for value in values}
    for value in values:
        shown |= {f"{abs(factor * value):.{digits}f}" for factor in (1, 100) for digits in range(4)} | {f"{value:.3g}"}
    return shown


def test_page_has_no_style_or_script_beyond_its_policy(written):
    page = written[0].read_text()
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)[1]
    assert "unsafe" not in policy and "default-src 'none'" in policy
    for tag in ("style", "script"):
        for inline in re.findall(rf"<{tag}[^>]*>(.*?)</{tag}>", page, re.DOTALL):
            checksum = base64.b64encode(hashlib.sha256(inline.encode()).digest()).decode()
            assert f"{tag}-src 'sha256-{checksum}'" in policy
    assert not re.search(r"""<[^>]*\s(style|on\w+)\s*=\s*["']""", page), "a policy without unsafe-inline stops these"


def test_every_number_on_the_page_is_in_the_json(answers, tmp_path):
    page, *_ = write(answers, tmp_path / "out", "Ablations")
    allowed = shown_forms(tmp_path / "out")
    # what a page of any numbers says: the level of its intervals, counts of its own, the paper's caveats
    seen = " ".join(Page(page.read_text()).texts).replace("95 % interval", "")
    seen = seen.split("Read the paper's rows with care")[0] + seen.split("compares in kind only.")[1]
    unknown = [number for number in re.findall(r"\d+(?:[.,]\d+)*", seen) if number not in allowed]
    assert len(re.findall(r"\d", seen)) > 200
    assert unknown == []


def test_page_is_self_contained(answers, tmp_path):
    paths = write(answers, tmp_path / "out", "Ablations")
    page = Page(paths[0].read_text())
    assert {path.name for path in paths} == {path.name for path in (tmp_path / "out").iterdir()}
    loaded = [value for tag, value in page.addresses if tag != "a"]
    assert loaded and all(value.startswith("data:") for value in loaded)
    linked = [value for tag, value in page.addresses if tag == "a"]
    ids = set(re.findall(r'id="([^"]+)"', paths[0].read_text()))
    assert all(value[1:] in ids if value.startswith("#") else (tmp_path / "out" / value).exists() for value in linked)
    assert "url(" not in paths[0].read_text() and "@import" not in paths[0].read_text()


def test_open_rule_names_needed_seeds(answers, written):
    page = written[0].read_text()
    shown = [ruling_words(ruling, 3) for verdict in verdicts() for ruling in verdict.rulings]
    assert "It needs 4 more seeds (7 in all)" in shown[1] and shown[1] in page.replace("&#39;", "'")
    assert "more documents" in ruling_words(dataclasses.replace(verdicts()[1].rulings[0], seeds=None), 3)
    assert "It needs 1 more seed (4 in all)" in ruling_words(dataclasses.replace(verdicts()[1].rulings[0], seeds=4), 3)
    assert "missing" in shown[3]
    assert not any("It needs" in shown[n] for n in (0, 2))
    assert data(answers[0])["verdicts"][1]["rulings"][0]["more_seeds"] == 4


def test_summary_shows_the_decisive_rule(answers, tmp_path):
    rules = (Ruling(KEPT, "above", 0.0, None, 0.4, 9), Ruling(HALVED, "below", 0.0, True, 0.9, None))
    either = dataclasses.replace(answers[1], verdicts=(Verdict("Either?", "yes", "Yes.", rules, "Less."),))
    html = write([either], tmp_path / "out", "Ablations")[0].read_text()
    summary = html[html.index('id="summary"') :].split("</table>")[0]
    assert words.effect(HALVED).value in summary and words.effect(KEPT).value not in summary


def test_unknown_values_are_dashes(written):
    for path in written:
        if path.suffix in (".html", ".md", ".tex", ".json"):
            content = path.read_text()
            content = re.sub(r"data:image/png;base64,[\w+/=]+", "", content)
            seen = content if path.suffix != ".html" else " ".join(Page(content).texts)
            assert not re.search(r"\b(nan|NaN|None|inf)\b", seen), path.name


@pytest.mark.parametrize("where", ["title", "question", "why", "design", "base"])
def test_texts_are_escaped_in_every_form(answers, tmp_path, where):
    hostile = f"{NASTY} 50 % of a_b [x](y) | z"
    effect = dataclasses.replace(KEPT, text=hostile)
    bad = dataclasses.replace(
        answers[1],
        **{where: hostile},
        caveats=(hostile,),
        verdicts=(Verdict(hostile, "no", hostile, (Ruling(effect, "above", 0.0, False, None, None),), hostile),),
        effects=(effect,),
        figures=(BY_SOURCE.model_copy(update={"title": hostile, "name": "a/../b"}),),
    )
    paths = write([bad], tmp_path / "out", hostile)
    assert {path.parent for path in paths} == {tmp_path / "out"}
    html = paths[0].read_text()
    assert "<script>alert" not in html and hostile in " ".join(Page(html).texts)
    markdown = next((tmp_path / "out").glob("*.md")).read_text()
    assert not re.search(r"(?<!\\)<script", markdown) and "](y)" not in markdown.replace("\\](y)", "")
    tex = latex(bad)
    body = "\n".join(line for line in tex.splitlines() if not line.startswith("%"))
    assert r"50 \% of a\_b" in body and r"\$x\_\{" in body and r"\textless{}script" in body
    assert not re.search(r"(?<!\\)[%$_#]", body.replace("$-$", "").replace(r"$\pm$", ""))


def test_latex_rows_are_effects_and_verdicts(answers):
    tex = latex(answers[0])
    assert tex.count(r"\begin{tabular}") == tex.count(r"\end{tabular}") == 2
    rows = [line for line in tex.splitlines() if line.startswith("{}")]
    assert len(rows) == 2 + len(answers[0].effects) + len(answers[0].verdicts)
    assert {len(re.findall(r"(?<!\\)&", line)) for line in rows[:5]} == {3}
    assert "toprule" not in tex


def test_answers_come_before_their_reasons(answers, written):
    html = written[0].read_text()
    section = html[html.index('<article id="q1-tiny">') :]
    order = ["Q?", "Is it halved?", "Yes: by it.", "Is it kept?", "<figure>", "Why<", "Design<", "Effects<"]
    order += ["Rules<", "What would change", "Caveats<", "Points<"]
    assert [section.index(one) for one in order] == sorted(section.index(one) for one in order)
    written = text_of(answers[1])
    order = ["Q?", "## Answers", "Is it halved?", r"Yes\: by it.", "Is it kept?", "## Why", "## Design", "## Effects"]
    order += ["## Rules", "What would change", "## Caveats", "## Points"]
    assert [written.index(one) for one in order] == sorted(written.index(one) for one in order)


def text_of(answer):
    from analysis.ablations.page import Section

    return text(Section(answer, ()))


def test_rows_have_as_many_cells_as_heads(answers, written):
    html = written[0].read_text()
    tables = re.findall(r"<table.*?</table>", html, flags=re.DOTALL)
    assert len(tables) == 2 + 2 * len(answers)
    for table in tables:
        heads, *rows = table.split("<tr")[1:]
        assert {row.count("<td") for row in rows} == {heads.count("<th scope")}


def test_our_results_stand_beside_the_paper_s(answers, tmp_path):
    html = write(answers, tmp_path / "a", "Ablations")[0].read_text()
    seen = " ".join(Page(html[html.index('id="beside') :].split("</section>")[0]).texts)
    for expected in ("Llama 3.2 1B", "60.77", "61.20", "+0.43", "above 88", "−13.00", "micro", "−4.0", "+10.0"):
        assert expected in seen, expected
    ours = json.loads((tmp_path / "a" / "index.json").read_text())["ours"]
    assert {row["role"] for row in ours} == {"commonsense", "math"} and len(ours) == 2 * len(DOSE)
    assert "beside-the-paper" not in write(answers[1:], tmp_path / "b", "Ablations")[0].read_text()


def test_each_base_has_its_own_files(answers, tmp_path):
    other = dataclasses.replace(answers[1], base="a/b c")
    names = {path.name for path in write([answers[1], other], tmp_path / "out", "Ablations")}
    assert {"q1-tiny.md", "q1-a-b-c.md", "q1-tiny-dose.png", "q1-a-b-c-dose.svg"} <= names
    page = (tmp_path / "out" / "index.html").read_text()
    assert page.count("<article") == 2 and "a/b c" in page


def test_answer_without_sweep_or_verdicts_has_a_page(tmp_path):
    bare = asked(None, figured("f", "F", "lora.rank", ("math.drop",)))
    page = write([bare], tmp_path / "out", "Ablations")[0].read_text()
    assert "Its sweep is not there." in page and "<figure" not in page
    assert "No question has an answer yet." in write([], tmp_path / "none", "Ablations")[0].read_text()


def test_equal_answers_are_equal_files(answers, tmp_path):
    first, second = (write(answers, tmp_path / name, "Ablations") for name in "ab")
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]
