"""The answers of ablations written down: one page that reads as a short paper, and each as Markdown, JSON, LaTeX and figures.

Differences of shares are in points, bits and nats with three decimals; the JSON files hold all numbers in their own units.
"""

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

from markupsafe import Markup

from analysis.ablations import figures
from analysis.ablations.answer import Answer, Ruling, Verdict
from analysis.ablations.points import path_name
from analysis.explore.failure_signatures import CAVEATS, PAPER
from analysis.export.markup import PLAIN, comment, markdown, tabular
from analysis.export.plain import plain
from analysis.export.templates import HTML, MARKDOWN
from analysis.figures.theme import DARK, LIGHT, png, svg
from analysis.formatting import labels
from analysis.formatting import numbers as told
from analysis.formatting.table import Beside, Column, Table
from analysis.metrics.names import split_metric
from analysis.results import schema as col
from analysis.stats.intervals import LEVEL
from trials.ledger.storage import replace_file, write_text

POWER = (
    "Power: the probability that an effect of the size that matters would have been settled with these seeds and documents. "
    "Values are means over seeds, with 95 % intervals over documents and seeds."
)
_PER_SEED = 6  # values that are listed one by one
_SCORES = ("base", "value", "gain", "forgetting")  # of a role, in the paper's table


@dataclass(frozen=True)
class Section:
    """An answer with its figures, drawn: of each `file` (without ending), `title`, `caption`, `light`, `dark` and `vector`."""

    answer: Answer
    pictures: Sequence[dict[str, Any]]

    @property
    def stem(self) -> str:
        """NAME-BASE: its place on the page, and the beginning of its files' names."""
        return _file(f"{self.answer.name}-{self.answer.base}")


def write(answers: Sequence[Answer], folder: Path, title: str) -> list[Path]:
    """Writes index.html, index.json and of each answer NAME-BASE.md, .json and .tex, and NAME-BASE-FIGURE.png and .svg.

    Returns the paths, index.html first.
    """
    sections = [Section(one, _pictures(one)) for one in answers]
    texts = {"index.html": page(sections, title), "index.json": _json(_overview(sections, title))}
    pictures: dict[str, bytes] = {}
    for one in sections:
        texts |= {f"{one.stem}.md": text(one), f"{one.stem}.json": _json(numbers(one.answer))}
        texts[f"{one.stem}.tex"] = latex(one.answer)
        for drawn in one.pictures:
            pictures |= {f"{drawn['file']}.png": drawn["light"], f"{drawn['file']}.svg": drawn["vector"]}
    for name, content in texts.items():
        write_text(folder / name, content)
    for name, data in pictures.items():
        replace_file(folder / name, partial(Path.write_bytes, data=data))
    return [folder / name for name in (*texts, *pictures)]


def _file(name: str) -> str:
    return re.sub(r"[^\w.-]+", "-", name)


def _pictures(answer: Answer) -> list[dict[str, Any]]:
    found = []
    for spec in answer.figures:
        light, dark = (figures.draw(answer, spec, theme) for theme in (LIGHT, DARK))
        if light is not None and dark is not None:
            words = {"title": spec.title, "caption": figures.caption(answer, spec)}
            files = {"light": png(light), "dark": png(dark), "vector": svg(light)}
            found.append({"file": _file(f"{answer.name}-{answer.base}-{spec.name}"), **words, **files})
    return found


# ---------------------------------------------------------------------- forms


def page(sections: Sequence[Section], title: str) -> str:
    """index.html as text."""
    answers = [one.answer for one in sections]
    shown = {"summary": _summary(sections), "paper": paper_table(answers), "paper_caveats": CAVEATS, "sections": sections}
    helpers = {"effects": effects_table, "cells": cells_table, "same": same, "ruling": ruling_words, "holding": holding}
    words = {"title": title, "headline": headline(answers), "power": POWER}
    return HTML.get_template("ablations.html.j2").render(**words, **shown, **helpers)


def text(section: Section) -> str:
    """An answer as GitHub-flavoured Markdown, its figures beside it."""
    answer = section.answer
    tables = {"effects": markdown(effects_table(answer)), "cells": markdown(cells_table(answer)), "same": same(answer)}
    helpers = {"ruling": ruling_words, "holding": holding, "seeds": seeds(answer.seeds), "power": POWER}
    return MARKDOWN.get_template("ablation.md.j2").render(answer=answer, pictures=section.pictures, **tables, **helpers)


def latex(answer: Answer) -> str:
    """Two tabulars, of the effects and of the verdicts; they need no package for their rules."""
    rows = [(one.question, one.answer, one.words) for one in answer.verdicts]
    verdicts = Table.of([Column("question"), Column("answer"), Column("in numbers")], rows)
    return (
        comment(f"{answer.name} on {answer.base}: {answer.title}, made by: slimsweep ablate")
        + "% Needs \\usepackage{textcomp} and \\usepackage[T1]{fontenc}.\n"
        + tabular(effects_table(answer), [r"p{.36\linewidth}", "r", "r", "r"], PLAIN)
        + "\n"
        + tabular(verdicts, [r"p{.28\linewidth}", "l", r"p{.5\linewidth}"], PLAIN)
    )


def numbers(answer: Answer) -> dict[str, Any]:
    """Content of NAME-BASE.json: the answer with its rulings by their effects' names, its points, and its figures' numbers.

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
            {name: getattr(one, name) for name in ("name", "title", "kind", "x", "y", "by")}
            | {"caption": figures.caption(answer, one), "lines": figures.numbers(answer, one)}
            for one in answer.figures
        ],
    }  # fmt: skip


def _verdict(verdict: Verdict, seeds: int) -> dict[str, Any]:
    named, of_ruling = ("question", "answer", "words", "change"), ("relation", "bound", "holds", "power", "seeds")
    rulings = [
        {"effect": dataclasses.asdict(one.effect), **{name: getattr(one, name) for name in of_ruling}}
        | {"more_seeds": None if one.seeds is None else one.seeds - seeds}
        for one in verdict.rulings
    ]
    return {name: getattr(verdict, name) for name in named} | {"rulings": rulings}


def _points(answer: Answer) -> list[dict[str, Any]]:
    sweep = answer.sweep
    if sweep is None:
        return []
    return [
        {name: row[name] for name in ("number", "state", "replicates")}
        | {"settings": {path: row[path] for path in sweep.space}}
        | {"metrics": {name: {key: row[column] for key, column in _columns(name).items()} for name in _metrics(answer)}}
        for row in sweep.trials.to_dict("records")
    ]


def _columns(metric: str) -> dict[str, str]:
    return col.interval(metric) | {"sd": col.sd(metric)}


def _overview(sections: Sequence[Section], title: str) -> dict[str, Any]:
    """Content of index.json: the headline, the verdicts by the name of the answer's files, and the table beside the paper's."""
    answers = [one.answer for one in sections]
    verdicts = {one.stem: [_verdict(verdict, one.answer.seeds) for verdict in one.answer.verdicts] for one in sections}
    beside = {"paper": PAPER, "ours": [row for answer in answers for row in _ours(answer)]}
    return {"schema": 1, "title": title, "headline": headline(answers), **beside, "verdicts": verdicts}


def _json(value: Any) -> str:
    return json.dumps(plain(value), indent=1, allow_nan=False) + "\n"


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
    """The rule, its effect, and what would settle it beyond `of` seeds."""
    value, interval = told.effect(ruling.effect)
    parts = [f"{ruling.effect.text}, asked to be {told.asked(ruling)}: {Beside(value, interval)}."]
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


def same(answer: Answer) -> str:
    """ "In all: rank 8, learning rate 2e-4."; empty where nothing is."""
    known = {path: labels.setting(value) for path, value in _settings(answer)[1].items()}
    parts = [f"{path_name(path)} {value}" for path, value in known.items() if value != labels.MISSING]
    return f"In all: {', '.join(parts)}." if parts else ""


# ---------------------------------------------------------------------- tables


def _summary(sections: Sequence[Section]) -> Table:
    rows = []
    for one in sections:
        link = Markup('<a href="#{}">{}</a>').format(one.stem, one.answer.name)
        for verdict in one.answer.verdicts:
            said = Markup('<b class="{}">{}</b>').format(verdict.answer.replace(" ", "-"), verdict.answer)
            rows.append((link, one.answer.base, said, verdict.question, _key_number(verdict)))
    heads = [Column("ablation"), Column("base"), Column("answer"), Column("question", kind="text")]
    found = Table.of([*heads, Column("what decides", number=True, kind="decides")], rows)
    several = len({one.answer.base for one in sections}) > 1
    return found if several else Table([one for one in found.columns if one.name != "base"])


def _key_number(verdict: Verdict) -> Beside:
    """The first rule that came out as the verdict did, with its interval."""
    outcome = {"yes": True, "no": False, "cannot tell": None}[verdict.answer]
    first = next(iter(sorted(verdict.rulings, key=lambda one: one.holds is not outcome)), None)
    if first is None:
        return Beside(labels.MISSING, "")
    value, interval = told.effect(first.effect)
    return Beside(value, ". ".join(part for part in (interval, first.effect.text) if part))


def effects_table(answer: Answer) -> Table:
    heads = [Column("effect", kind="text"), Column("value", "with its 95 % interval", number=True)]
    heads += [Column("seeds", number=True, kind="each"), Column("documents", number=True)]
    rows = []
    for one in answer.effects:
        each = [told.number(one.unit, value) for value in one.per_seed] if 1 < len(one.per_seed) <= _PER_SEED else []
        counted = Beside(len(one.per_seed) or labels.MISSING, ", ".join(each))
        rows.append((one.text, Beside(*told.effect(one)), counted, one.documents or labels.MISSING))
    return Table.of(heads, rows)


def cells_table(answer: Answer) -> Table:
    """The points: what varies between them, and what came of each."""
    if answer.sweep is None:
        return Table([])
    trials = answer.sweep.trials
    states = zip(trials["number"], trials["state"], strict=True)
    points = [f"#{number}" + ("" if state == "complete" else f" {state}") for number, state in states]
    found = [Column("point", "its number in the sweep", number=True, kind="number", cells=points)]
    for path in _settings(answer)[0]:
        found.append(Column(path_name(path), path, cells=list(map(labels.setting, trials[path]))))
    for name in _metrics(answer):
        cells = [told.both(row, name) for row in trials.to_dict("records")]
        found.append(Column(labels.column(name), f"{name}, with its 95 % interval", number=True, cells=cells))
    return Table(found)


def _metrics(answer: Answer) -> list[str]:
    return [name for name in answer.table if answer.sweep is not None and name in answer.sweep.metrics]


def _settings(answer: Answer) -> tuple[list[str], dict[str, Any]]:
    """The paths that vary between the points, and those that do not with their value."""
    if answer.sweep is None or answer.sweep.trials.empty:
        return [], {}
    trials = answer.sweep.trials
    varied = [path for path in answer.sweep.space if trials[path].map(labels.setting).nunique() > 1]
    return varied, {path: trials[path].iloc[0] for path in answer.sweep.space if path not in varied}


def paper_table(answers: Sequence[Answer]) -> Table | None:
    """By role, the paper's rows and then ours; None where the answer named "paper" is missing."""
    ours = [row for answer in answers for row in _ours(answer)]
    if not ours:
        return None
    roles = dict.fromkeys([split_metric(name)[0] for one in PAPER for name in one if "." in name])
    rows = []
    for role in roles | dict.fromkeys(row["role"] for row in ours):
        rows += [_papers(one, role) for one in PAPER if any(name.startswith(f"{role}.") for name in one)]
        rows += [_shown(row) for row in ours if row["role"] == role]
    heads = [Column("skill"), Column("model"), Column("base (%)", number=True), Column("tuned (%)", number=True)]
    heads += [Column("gain (points)", "tuned minus base", number=True)]
    return Table.of([*heads, Column("forgetting (%)", "of the base's score", number=True)], rows)


def _papers(one: dict[str, Any], role: str) -> list[Any]:
    before, after, drop, forgot = (one.get(f"{role}.{kind}") for kind in ("base", "value", "drop", "forgetting"))
    gain = after - before if after is not None and before is not None else -drop if drop is not None else None
    shares = {"base": before, "value": after, "gain": gain}
    lost = labels.percent(f"{role}.forgetting", forgot, digits=0).lstrip("+")
    texts = [labels.percent(f"{role}.{kind}", value, digits=2) for kind, value in shares.items()]
    model = Beside(one["model"], f"the paper, {one['samples']:,} rows")
    return [role, model, *texts, lost if forgot is None else f"above {lost}"]


def _ours(answer: Answer) -> list[dict[str, Any]]:
    """A row per role of each finished point of the answer named "paper", with its metrics in shares."""
    sweep = answer.sweep
    if answer.name != "paper" or sweep is None:
        return []
    roles = [split_metric(name)[0] for name in sweep.metrics if name.endswith(".gain") and not name.startswith("learning.")]
    found = []
    for row in sweep.complete.to_dict("records"):
        spec = sweep.records[row["key"]].spec
        point = {"model": spec.base.model, "samples": spec.data.samples, "replicates": row["replicates"]}
        for role in roles:
            names = [column for kind in _SCORES for column in _columns(f"{role}.{kind}").values()]
            found.append({"role": role, **point, **{name: row[name] for name in names}})
    return found


def _shown(row: dict[str, Any]) -> list[Any]:
    base, value, *differences = (f"{row['role']}.{kind}" for kind in _SCORES)
    small = f"ours, {row['samples']:,} rows, {seeds(int(row['replicates']))}"
    cells = [told.value(row, base), told.value(row, value), *(told.both(row, name) for name in differences)]
    return [row["role"], Beside(row["model"].rsplit("/", 1)[-1], small), *cells]
