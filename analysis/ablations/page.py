"""The answers of ablations written down: one page that reads as a short paper, and each as Markdown, JSON, LaTeX and figures.

Differences of shares are told in points, bits and nats with three decimals; the JSON files hold all numbers in their own units.
"""

import base64
import dataclasses
import json
import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from analysis.ablations import figures
from analysis.ablations.answer import Answer, Ruling, Verdict
from analysis.ablations.figures import path_name
from analysis.explore.failure_signatures import CAVEATS, PAPER
from analysis.export.files import TEMPLATES
from analysis.export.markup import Table, latex_text, markdown, markdown_text
from analysis.figures.front import DARK, LIGHT, png, svg
from analysis.formatting import labels
from analysis.formatting import numbers as told
from analysis.metrics.names import split_metric
from analysis.results.sweep import Sweep
from analysis.stats.intervals import LEVEL
from trials.ledger.storage import replace_file, write_text

POWER = (
    "Power: the probability that an effect of the size that matters would have been settled with these seeds and documents. "
    "Values are means over seeds, with 95 % intervals over documents and seeds."
)
_PER_SEED = 6  # values that are told one by one
_ENDS = ("", "_low", "_high", "_sd")


@dataclass(frozen=True)
class Picture:
    """A figure of an answer, drawn; `name` is that of its files."""

    name: str
    title: str
    caption: str
    light: bytes
    dark: bytes
    vector: bytes


@dataclass(frozen=True)
class Section:
    """An answer as it is told."""

    stem: str
    """Of its files, and its place on the page."""
    answer: Answer
    pictures: tuple[Picture, ...]


def write(answers: Sequence[Answer], folder: Path, title: str) -> list[Path]:
    """Writes index.html, index.json and of each answer NAME-BASE.md, .json and .tex, and NAME-BASE-FIGURE.png and .svg.

    Returns the paths, index.html first.
    """
    sections = [Section(label(answer), answer, tuple(_pictures(answer, label(answer)))) for answer in answers]
    texts = {"index.html": page(sections, title), "index.json": _json(_overview(sections, title))}
    for one in sections:
        texts |= {
            f"{one.stem}.md": text(one),
            f"{one.stem}.json": _json(numbers(one.answer)),
            f"{one.stem}.tex": latex(one.answer),
        }
    for name, content in texts.items():
        write_text(folder / name, content)
    pictures = {
        f"{picture.name}.{kind}": data
        for one in sections
        for picture in one.pictures
        for kind, data in (("png", picture.light), ("svg", picture.vector))
    }
    for name, data in pictures.items():
        replace_file(folder / name, partial(Path.write_bytes, data=data))
    return [folder / name for name in (*texts, *pictures)]


def label(answer: Answer) -> str:
    """NAME-BASE, of its files."""
    return re.sub(r"[^\w.-]+", "-", f"{answer.name}-{answer.base}")


def _pictures(answer: Answer, stem: str) -> list[Picture]:
    found = []
    for spec in answer.figures:
        light, dark = (figures.draw(answer, spec, theme) for theme in (LIGHT, DARK))
        if light is not None and dark is not None:
            name = re.sub(r"[^\w.-]+", "-", f"{stem}-{spec.name}")
            found.append(Picture(name, spec.title, figures.caption(answer, spec), png(light), png(dark), svg(light)))
    return found


# ---------------------------------------------------------------------- forms


def page(sections: Sequence[Section], title: str) -> str:
    """index.html as text."""
    answers = [one.answer for one in sections]
    return TEMPLATES.get_template("ablations.html.j2").render(
        title=title,
        headline=headline(answers),
        summary=_summary(sections),
        paper=paper_table(answers, html=True),
        paper_caveats=CAVEATS,
        sections=sections,
        effects=partial(effects_table, html=True),
        cells=partial(cells_table, html=True),
        same=same,
        ruling=ruling_words,
        holding=holding,
        power=POWER,
        inline=lambda picture: "data:image/png;base64," + base64.b64encode(picture).decode(),
    )


def text(section: Section) -> str:
    """An answer as GitHub-flavoured Markdown, its figures beside it."""
    answer, told_as = section.answer, markdown_text
    parts = [f"# {told_as(answer.title)}", f"*{told_as(answer.name)} on {told_as(answer.base)}, {seeds(answer.seeds)}.*"]
    for head, words in (("Question", answer.question), ("Why", answer.why), ("Design", answer.design)):
        parts += [f"## {head}", told_as(words)]
    for picture in section.pictures:
        parts += [f"![{told_as(picture.title)}]({picture.name}.png)", f"*{told_as(picture.title)}.* {told_as(picture.caption)}"]
    if answer.effects:
        parts += ["## Effects", markdown(effects_table(answer)), told_as(POWER)]
    parts.append("## Answers")
    for verdict in answer.verdicts:
        parts += [f"### {told_as(verdict.question)}", f"**{told_as(verdict.answer.capitalize())}.** {told_as(verdict.words)}"]
        parts.append("\n".join(f"- **{holding(one)}**: {told_as(ruling_words(one, answer.seeds))}" for one in verdict.rulings))
        parts.append(f"What would change this verdict: {told_as(verdict.change)}")
    if answer.caveats:
        parts += ["## Caveats", "\n".join(f"- {told_as(one)}" for one in answer.caveats)]
    if answer.sweep is not None:
        parts += ["## Points", told_as(same(answer)), markdown(cells_table(answer))]
    return "\n\n".join(part.rstrip("\n") for part in parts if part) + "\n"


def latex(answer: Answer) -> str:
    """Two tabulars, of the effects and of the verdicts; they need no package for their rules."""
    verdicts = {
        "heads": [("question", "", False), ("answer", "", False), ("in numbers", "", False)],
        "rows": [_row([verdict.question, verdict.answer, verdict.words]) for verdict in answer.verdicts],
    }
    head = [
        f"% {' '.join(f'{answer.name} on {answer.base}: {answer.title}'.split())}, made by: slimsweep ablate",
        r"% Needs \usepackage{textcomp} and \usepackage[T1]{fontenc}.",
    ]
    wide = [r"p{.28\linewidth}", "l", r"p{.5\linewidth}"]
    return (
        "\n".join(
            [*head, *_tabular(effects_table(answer), [r"p{.36\linewidth}", "r", "r", "r"]), "", *_tabular(verdicts, wide)]
        )
        + "\n"
    )


def _tabular(table: Table, columns: Sequence[str]) -> list[str]:
    def line(cells: Sequence[Any]) -> str:
        # an empty group first: a row that began with "[" would be an argument of the row end before it
        return "{}" + " & ".join(latex_text(cell) for cell in cells) + r" \\"

    rows = [line([cell for cell, *_ in row["cells"]]) for row in table["rows"]]
    head = line([name for name, *_ in table["heads"]])
    return [rf"\begin{{tabular}}{{{''.join(columns)}}}", r"\hline", head, r"\hline", *rows, r"\hline", r"\end{tabular}"]


def numbers(answer: Answer) -> dict[str, Any]:
    """What NAME-BASE.json holds: the answer with its rulings by their effects' names, its points, and what its figures draw.

    Differences of shares are in shares. A ruling has the seeds that would settle it, and how many more these are.
    """
    named = ("name", "title", "question", "why", "design", "base", "seeds", "caveats")
    return {name: getattr(answer, name) for name in named} | {
        "schema": 1,
        "effects": [dataclasses.asdict(one) for one in answer.effects],
        "verdicts": [_verdict(one, answer.seeds) for one in answer.verdicts],
        "points": _points(answer),
        "same": _settings(answer)[1],
        "figures": [
            {"name": one.name, "title": one.title, "kind": one.kind, "x": one.x, "y": one.y, "by": one.by}
            | {"caption": figures.caption(answer, one), "lines": figures.numbers(answer, one)}
            for one in answer.figures
        ],
    }  # fmt: skip


def _verdict(verdict: Verdict, seeds: int) -> dict[str, Any]:
    rulings = [
        {"effect": dataclasses.asdict(one.effect), "relation": one.relation, "bound": one.bound, "holds": one.holds}
        | {"power": one.power, "seeds": one.seeds, "more_seeds": None if one.seeds is None else one.seeds - seeds}
        for one in verdict.rulings
    ]
    named = ("question", "answer", "words", "change")
    return {name: getattr(verdict, name) for name in named} | {"rulings": rulings}


def _points(answer: Answer) -> list[dict[str, Any]]:
    sweep = answer.sweep
    if sweep is None:
        return []
    metrics = [name for name in answer.table if name in sweep.metrics]
    return [
        {
            "number": row["number"],
            "state": row["state"],
            "replicates": row["replicates"],
            "settings": {path: row[path] for path in sweep.space},
            "metrics": {name: {end.lstrip("_") or "value": row[f"{name}{end}"] for end in _ENDS} for name in metrics},
        }
        for row in sweep.trials.to_dict("records")
    ]


def _overview(sections: Sequence[Section], title: str) -> dict[str, Any]:
    """What index.json holds: the headline, the verdicts by the name of the answer's files, and the table beside the paper's."""
    answers = [one.answer for one in sections]
    return {
        "schema": 1,
        "title": title,
        "headline": headline(answers),
        "paper": PAPER,
        "ours": [row for answer in answers for row in _ours(answer)],
        "verdicts": {one.stem: [_verdict(verdict, one.answer.seeds) for verdict in one.answer.verdicts] for one in sections},
    }


def _json(value: Any) -> str:
    return json.dumps(_plain(value), indent=1, allow_nan=False) + "\n"


def _plain(value: Any) -> Any:
    """As JSON has it: no numpy types, None for what is not a finite number."""
    if isinstance(value, dict):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


# ---------------------------------------------------------------------- in words


def headline(answers: Sequence[Answer]) -> str:
    """ "12 questions: 5 yes, 3 no, 4 cannot be told yet."."""
    found: Counter[str] = Counter(verdict.answer for answer in answers for verdict in answer.verdicts)
    words = {"yes": "yes", "no": "no", "cannot tell": "cannot be told yet"}
    counted = ", ".join(f"{found[name]} {said}" for name, said in words.items() if found[name])
    asked = sum(found.values())
    return f"{asked} question{'s' * (asked != 1)}: {counted}." if asked else "No question has an answer yet."


def holding(ruling: Ruling) -> str:
    return {True: "holds", False: "does not hold", None: "open"}[ruling.holds]


def ruling_words(ruling: Ruling, of: int) -> str:
    """The rule, what was found, and, of `of` seeds, what would settle it."""
    value, interval = told.effect(ruling.effect)
    parts = [f"{ruling.effect.text}, asked to be {told.asked(ruling)}: {value}{f' ({interval})' if interval else ''}."]
    if ruling.level > LEVEL:
        parts.append(f"One of several rules that could decide, so it is held against its {100 * ruling.level:.1f} % interval.")
    if ruling.power is not None:
        parts.append(f"Power {told.probability(ruling.power)}.")
    if ruling.holds is None:
        parts.append(_settling(ruling, of))
    return " ".join(parts)


def _settling(ruling: Ruling, of: int) -> str:
    if not math.isfinite(ruling.effect.value):
        return "Trials are missing, or the base's score is too near to 0 for shares of it."
    if math.isnan(ruling.effect.stderr):
        return "More bases would settle it, not more seeds."
    if ruling.seeds is None:
        return "No number of seeds would settle it: more documents must."
    return f"{seeds(ruling.seeds - of).replace(' ', ' more ')} would settle it ({ruling.seeds} in all)."


def seeds(count: int) -> str:
    return f"{count} seed{'s' * (count != 1)}"


# ---------------------------------------------------------------------- tables


def _row(cells: Sequence[Any], kinds: Sequence[str] = ()) -> dict[str, Any]:
    kinds = kinds or [""] * len(cells)
    return {"kind": "", "cells": [(cell, None, kind) for cell, kind in zip(cells, kinds, strict=True)]}


def _beside(value: Any, small: str, html: bool) -> str:
    """With what stands smaller beside it."""
    if not small:
        return str(value)
    return Markup("{} <i>{}</i>").format(value, small) if html else f"{value} ({small})"


def _summary(sections: Sequence[Section]) -> Table:
    several = len({one.answer.base for one in sections}) > 1
    heads = [
        ("ablation", False),
        *([("base", False)] if several else []),
        ("answer", False),
        ("question", False),
        ("what decides", True),
    ]
    rows = []
    for one in sections:
        for verdict in one.answer.verdicts:
            link = Markup('<a href="#{}">{}</a>').format(one.stem, one.answer.name)
            said = Markup('<b class="{}">{}</b>').format(verdict.answer.replace(" ", "-"), verdict.answer)
            base = [one.answer.base] if several else []
            kinds = ["", *[""] * several, "", "text", "decides"]
            rows.append(_row([link, *base, said, verdict.question, _key_number(verdict)], kinds))
    return {"heads": [(name, "", is_number) for name, is_number in heads], "rows": rows}


def _key_number(verdict: Verdict) -> str:
    """Of the first rule that came out as the verdict did, with its interval."""
    outcome = {"yes": True, "no": False, "cannot tell": None}[verdict.answer]
    alike = [one for one in verdict.rulings if one.holds is outcome]
    first = next(iter([*alike, *verdict.rulings]), None)
    if first is None:
        return labels.MISSING
    value, interval = told.effect(first.effect)
    return _beside(value, ". ".join(part for part in (interval, first.effect.text) if part), html=True)


def effects_table(answer: Answer, html: bool = False) -> Table:
    heads = [("effect", "", False), ("value", "with its 95 % interval", True), ("seeds", "", True), ("documents", "", True)]
    rows = []
    for one in answer.effects:
        each = [told.number(one.unit, value) for value in one.per_seed] if 1 < len(one.per_seed) <= _PER_SEED else []
        counted = [_beside(len(one.per_seed) or labels.MISSING, ", ".join(each), html), one.documents or labels.MISSING]
        rows.append(_row([one.text, _beside(*told.effect(one), html), *counted], ["text", "", "each", ""]))
    return {"heads": heads, "rows": rows}


def cells_table(answer: Answer, html: bool = False) -> Table:
    """The points: what varies between them, and what came of each."""
    sweep = answer.sweep
    if sweep is None:
        return {"heads": [], "rows": []}
    paths = _settings(answer)[0]
    metrics = [name for name in answer.table if name in sweep.metrics]
    heads = [("point", "its number in the sweep", True), *((path_name(path), path, False) for path in paths)]
    heads += [
        (f"{labels.metric_name(name)} ({labels.unit(name).strip()})", f"{name}, with its 95 % interval", True)
        for name in metrics
    ]
    rows = []
    for row in sweep.trials.to_dict("records"):
        number = f"#{row['number']}" + ("" if row["state"] == "complete" else f" {row['state']}")
        settings = [labels.setting(row[path]) for path in paths]
        found = [_beside(told.value(row, name), told.interval(row, name), html) for name in metrics]
        rows.append(_row([number, *settings, *found], ["number", *[""] * (len(paths) + len(metrics))]))
    return {"heads": heads, "rows": rows}


def _settings(answer: Answer) -> tuple[list[str], dict[str, Any]]:
    """The paths that vary between the points, and those that do not with their value."""
    if answer.sweep is None or answer.sweep.trials.empty:
        return [], {}
    trials = answer.sweep.trials
    told_as = {path: trials[path].map(labels.setting) for path in answer.sweep.space}
    varied = [path for path, column in told_as.items() if column.nunique() > 1]
    return varied, {path: trials[path].iloc[0] for path in told_as if path not in varied}


def same(answer: Answer) -> str:
    """ "In all: rank 8, learning rate 2e-4."; empty where nothing is."""
    known = {path: labels.setting(value) for path, value in _settings(answer)[1].items()}
    parts = [f"{path_name(path)} {value}" for path, value in known.items() if value != labels.MISSING]
    return f"In all: {', '.join(parts)}." if parts else ""


# ---------------------------------------------------------------------- the paper's table beside ours


def paper_table(answers: Sequence[Answer], html: bool = False) -> Table | None:
    """By role, the paper's rows and then ours; None where the answer named "paper" is missing."""
    ours = [row for answer in answers for row in _ours(answer)]
    if not ours:
        return None
    roles = dict.fromkeys([*(role for one in PAPER for role in _roles(one)), *(row["role"] for row in ours)])
    heads = [("skill", "", False), ("model", "", False), ("base (%)", "", True), ("tuned (%)", "", True)]
    heads += [("gain (points)", "tuned minus base", True), ("forgetting (%)", "of the base's score", True)]
    rows = []
    for role in roles:
        rows += [_row(_papers(one, role, html)) for one in PAPER if role in _roles(one)]
        rows += [_row(_told_ours(row, html)) for row in ours if row["role"] == role]
    return {"heads": heads, "rows": rows}


def _roles(one: dict[str, Any]) -> list[str]:
    return list(dict.fromkeys(name.partition(".")[0] for name in one if "." in name))


def _papers(one: dict[str, Any], role: str, html: bool) -> list[str]:
    before, after, drop = (one.get(f"{role}.{kind}") for kind in ("base", "value", "drop"))
    gain = after - before if after is not None and before is not None else -drop if drop is not None else None
    shares = {"base": before, "value": after, "gain": gain}
    forgot = one.get(f"{role}.forgetting")
    lost = labels.percent(f"{role}.forgetting", forgot, digits=0).lstrip("+")
    return [
        role,
        _beside(one["model"], f"the paper, {one['samples']:,} rows", html),
        *(labels.percent(f"{role}.{kind}", value, digits=2) for kind, value in shares.items()),
        lost if forgot is None else f"above {lost}",
    ]


def _ours(answer: Answer) -> list[dict[str, Any]]:
    """A row per role of each finished point of the answer named "paper", with its metrics in shares."""
    sweep: Sweep | None = answer.sweep
    if answer.name != "paper" or sweep is None:
        return []
    roles = [split_metric(name)[0] for name in sweep.metrics if name.endswith(".gain") and not name.startswith("learning.")]
    found = []
    for row in sweep.trials[sweep.trials["state"] == "complete"].to_dict("records"):
        spec = sweep.records[row["key"]].spec
        for role in roles:
            kinds = [f"{role}.{kind}" for kind in ("base", "value", "gain", "forgetting")]
            own = {"role": role, "model": spec.base.model, "samples": spec.data.samples, "replicates": row["replicates"]}
            found.append(own | {f"{name}{end}": row[f"{name}{end}"] for name in kinds for end in _ENDS})
    return found


def _told_ours(row: dict[str, Any], html: bool) -> list[str]:
    names = [f"{row['role']}.{kind}" for kind in ("base", "value", "gain", "forgetting")]
    plain = [told.value(row, name) for name in names[:2]]
    with_interval = [_beside(told.value(row, name), told.interval(row, name), html) for name in names[2:]]
    whose = _beside(row["model"].rsplit("/", 1)[-1], f"ours, {row['samples']:,} rows, {seeds(int(row['replicates']))}", html)
    return [row["role"], whose, *plain, *with_interval]
