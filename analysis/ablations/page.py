"""The answers of ablations as files: one page that reads as a short paper; Markdown, JSON, LaTeX and figures for each.

Differences of shares are in points, bits and nats with three decimals; the JSON files hold all numbers in their own units.
"""

import dataclasses
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from analysis.ablations import figures, tables, words
from analysis.ablations.answer import Answer, Verdict
from analysis.explore.failure_signatures import CAVEATS, PAPER
from analysis.export.markup import PLAIN, comment, markdown, tabular
from analysis.export.plain import plain
from analysis.export.templates import HTML, MARKDOWN
from analysis.figures.theme import DARK, LIGHT, png, svg
from analysis.formatting.table import Column, Table
from trials.ledger.storage import replace_file


@dataclass(frozen=True)
class Section:
    """An answer with its drawn figures; each has `file` (no ending), `title`, `caption`, `light`, `dark` and `vector`."""

    answer: Answer
    pictures: Sequence[dict[str, Any]]

    @property
    def stem(self) -> str:
        """NAME-BASE: its id on the page, and the beginning of its files' names."""
        return _file(f"{self.answer.name}-{self.answer.base}")


def write(answers: Sequence[Answer], folder: Path, title: str) -> list[Path]:
    """Writes index.html, index.json and, for each answer, NAME-BASE.md, .json and .tex, and NAME-BASE-FIGURE.png and .svg.

    Returns the paths, index.html first.
    """
    sections = [Section(one, _pictures(one)) for one in answers]
    files: dict[str, str | bytes] = {"index.html": page(sections, title), "index.json": _json(_overview(sections, title))}
    for one in sections:
        files |= {
            f"{one.stem}.md": text(one),
            f"{one.stem}.json": _json(data(one.answer)),
            f"{one.stem}.tex": latex(one.answer),
        }
        for drawn in one.pictures:
            files |= {f"{drawn['file']}.png": drawn["light"], f"{drawn['file']}.svg": drawn["vector"]}
    for name, content in files.items():
        # replaced, not overwritten: a reader may have the page open
        encoded = content.encode() if isinstance(content, str) else content
        replace_file(folder / name, partial(Path.write_bytes, data=encoded))
    return [folder / name for name in files]


def _file(name: str) -> str:
    return re.sub(r"[^\w.-]+", "-", name)


def _pictures(answer: Answer) -> list[dict[str, Any]]:
    found = []
    for spec in answer.figures:
        light, dark = (figures.draw(answer, spec, theme) for theme in (LIGHT, DARK))
        if light is not None and dark is not None:
            texts = {"title": spec.title, "caption": figures.caption(answer, spec)}
            pictures = {"light": png(light), "dark": png(dark), "vector": svg(light)}
            found.append({"file": _file(f"{answer.name}-{answer.base}-{spec.name}"), **texts, **pictures})
    return found


def page(sections: Sequence[Section], title: str) -> str:
    """index.html as text."""
    answers = [one.answer for one in sections]
    return HTML.get_template("ablations.html.j2").render(
        title=title,
        sections=sections,
        words=words,
        tables=tables,
        headline=words.headline(answers),
        summary=tables.summary({one.stem: one.answer for one in sections}),
        paper=tables.beside_paper(answers),
        paper_caveats=CAVEATS,
    )


def text(section: Section) -> str:
    """An answer as GitHub-flavoured Markdown, its figures beside it."""
    return MARKDOWN.get_template("ablation.md.j2").render(
        answer=section.answer, pictures=section.pictures, words=words, tables=tables, markdown=markdown
    )


def latex(answer: Answer) -> str:
    """Two tabulars, of the effects and of the verdicts; they need no package for their rules."""
    rows = [(one.question, one.answer, one.words) for one in answer.verdicts]
    verdicts = Table.of([Column("question"), Column("answer"), Column("in numbers")], rows)
    return (
        comment(f"{answer.name} on {answer.base}: {answer.title}, made by: slimsweep ablate")
        + "% Needs \\usepackage{textcomp} and \\usepackage[T1]{fontenc}.\n"
        + tabular(tables.effects(answer), [r"p{.36\linewidth}", "r", "r", "r"], PLAIN)
        + "\n"
        + tabular(verdicts, [r"p{.28\linewidth}", "l", r"p{.5\linewidth}"], PLAIN)
    )


def data(answer: Answer) -> dict[str, Any]:
    """Content of NAME-BASE.json: the answer with its rulings by their effects' names, its points, and its figures' data.

    Differences of shares are in shares. A ruling has the seeds that would settle it, and how many more these are.
    """
    sweep, metrics = answer.sweep, tables.metrics(answer)
    rows = [] if sweep is None else sweep.trials.to_dict("records")
    return {
        name: getattr(answer, name) for name in ("name", "title", "question", "why", "design", "base", "seeds", "caveats")
    } | {
        "schema": 1,
        "effects": [dataclasses.asdict(one) for one in answer.effects],
        "verdicts": [_verdict(one, answer.seeds) for one in answer.verdicts],
        "points": [
            {name: row[name] for name in ("number", "state", "replicates")}
            | {"settings": {path: row[path] for path in (sweep.space if sweep else ())}}
            | {"metrics": {name: {key: row[column] for key, column in tables.columns(name).items()} for name in metrics}}
            for row in rows
        ],
        "same": tables.settings(answer)[1],
        "figures": [
            {name: getattr(one, name) for name in ("name", "title", "kind", "x", "y", "by")}
            | {"caption": figures.caption(answer, one), "lines": figures.data(answer, one)}
            for one in answer.figures
        ],
    }


def _verdict(verdict: Verdict, seeds: int) -> dict[str, Any]:
    found = dataclasses.asdict(verdict)
    for ruling in found["rulings"]:
        del ruling["level"]
        ruling["more_seeds"] = None if ruling["seeds"] is None else ruling["seeds"] - seeds
    return found


def _overview(sections: Sequence[Section], title: str) -> dict[str, Any]:
    """Content of index.json: headline, verdicts by the name of the answer's files, our results beside the paper's."""
    answers = [one.answer for one in sections]
    verdicts = {one.stem: [_verdict(verdict, one.answer.seeds) for verdict in one.answer.verdicts] for one in sections}
    ours = [row for answer in answers for row in tables.own_results(answer)]
    headline = words.headline(answers)
    return {"schema": 1, "title": title, "headline": headline, "paper": PAPER, "ours": ours, "verdicts": verdicts}


def _json(value: Any) -> str:
    return json.dumps(plain(value), indent=1, allow_nan=False) + "\n"
