"""The answers of the ablations as files: one page that needs no network and reads as a short paper would, and of each answer
Markdown, JSON, a LaTeX table and its figures."""

import base64
import json
import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from analysis import labels, told
from analysis.ablation import signed, told_bound, told_value
from analysis.ablation_figure import draw
from analysis.answer import Answer, Effect, FigureSpec, Ruling
from analysis.export import TEMPLATES
from analysis.plots import DARK, LIGHT, png, svg
from analysis.signatures import PAPER
from analysis.tables import latex_text, markdown, markdown_text
from trials.storage import replace_file

_ROLES = ("commonsense", "math", "knowledge")


def write(answers: Sequence[Answer], folder: Path, title: str) -> list[Path]:
    """Writes index.html, and of each answer NAME-BASE.md, .json, .tex and its figures as PNG and SVG; returns the paths."""
    drawn = {id(answer): list(_figures(answer)) for answer in answers}
    files: dict[str, bytes] = {"index.html": page(answers, title, drawn).encode()}
    for answer in answers:
        stem = label(answer)
        files[f"{stem}.md"] = _markdown(answer, [name for name, *_ in drawn[id(answer)]]).encode()
        files[f"{stem}.json"] = (json.dumps(as_dict(answer), indent=1, allow_nan=False) + "\n").encode()
        files[f"{stem}.tex"] = _latex(answer).encode()
        for name, _, light, _ in drawn[id(answer)]:
            files |= {f"{stem}-{name}.png": png(light), f"{stem}-{name}.svg": svg(light)}
    for name, content in files.items():
        replace_file(folder / name, partial(Path.write_bytes, data=content))
    return [folder / name for name in files]


def label(answer: Answer) -> str:
    return f"{answer.name}-{answer.base}"


def _figures(answer: Answer) -> Any:
    """(name, title, light, dark) of those that have something to show."""
    for spec in answer.figures:
        light = draw(answer, spec, LIGHT)
        if light is not None:
            dark = draw(answer, spec, DARK)
            assert dark is not None
            yield spec.name, _caption(answer, spec), light, dark


def _caption(answer: Answer, spec: FigureSpec) -> str:
    if spec.kind == "layers":
        return f"{spec.title}: linear centred kernel alignment with the base on held-out rows, by block; one seed."
    seeds = f"mean of {answer.seeds} seeds" if answer.seeds > 1 else "nothing is averaged"
    return f"{spec.title}; {seeds}, bars are 95 % intervals over documents{' and seeds' if answer.seeds > 1 else ''}."


# ---------------------------------------------------------------------- the page


def page(answers: Sequence[Answer], title: str, drawn: dict[int, list[tuple[str, str, Figure, Figure]]]) -> str:
    """index.html as text."""
    return TEMPLATES.get_template("ablations.html.j2").render(
        title=title,
        answers=answers,
        label=label,
        key=key_effect,
        told_value=told_value,
        paper=paper_table(answers),
        rulings=_rulings,
        effects=_effects,
        cells=cells_table,
        pictures={
            one: [(caption, _inline(light), _inline(dark), light.get_figwidth()) for _, caption, light, dark in some]
            for one, some in drawn.items()
        },
        identity=id,
        counts={said: sum(one.answer == said for answer in answers for one in answer.verdicts) for said in _SAID},
    )


_SAID = ("yes", "no", "cannot tell")


def _inline(figure: Figure) -> str:
    return "data:image/png;base64," + base64.b64encode(png(figure)).decode()


def key_effect(rulings: Sequence[Ruling]) -> Effect:
    """The one that a verdict is told by in a word: its first rule's."""
    return rulings[0].effect


def _table(heads: Sequence[tuple[str, bool]], rows: Sequence[Sequence[Any]], kinds: Sequence[str] = ()) -> dict[str, Any]:
    """For the page's macro, and for `tables.markdown`."""
    kinds = [*kinds, *[""] * (len(heads) - len(kinds))]
    cells = [{"kind": "", "cells": [(one, None, kind) for one, kind in zip(row, kinds, strict=True)]} for row in rows]
    return {"heads": [(text, "", number) for text, number in heads], "rows": cells}


def _rulings(rulings: Sequence[Ruling]) -> dict[str, Any]:
    rows = []
    for one in rulings:
        held = {True: "holds", False: "does not hold", None: "open"}[one.holds]
        power = labels.MISSING if one.power is None else told.probability(one.power)
        seeds = str(one.seeds) if one.seeds is not None else labels.MISSING
        rows.append([one.effect.text, told_value(one.effect), told_bound(one), held, power, seeds])
    heads = [
        ("effect", False),
        ("found", False),
        ("the rule asks", False),
        ("it", False),
        ("power", True),
        ("seeds to settle it", True),
    ]
    return _table(heads, rows, ("text", "text", "", "", "", ""))


def _effects(effects: Sequence[Effect]) -> dict[str, Any]:
    rows = [
        [one.text, told_value(one), ", ".join(_seed(one, value) for value in one.per_seed), one.documents or ""]
        for one in effects
    ]
    heads = [("effect", False), ("value (95 % interval)", False), ("by seed", False), ("documents", True)]
    return _table(heads, rows, ("text", "text", "text", ""))


def _seed(effect: Effect, value: float) -> str:
    return signed(100 * value, 1) if effect.unit == "points" else signed(value, 3)


def cells_table(answer: Answer) -> dict[str, Any]:
    """The points: what varies among them, and the metrics that the ablation's table shows."""
    sweep = answer.sweep
    if sweep is None:
        return _table([], [])
    rows = sweep.trials.to_dict("records")
    paths = [path for path in sweep.space if len({str(row.get(path)) for row in rows}) > 1]
    names = labels.setting_names(paths)
    metrics = [name for name in answer.table if name in sweep.trials]
    heads = [(names[path], False) for path in paths] + [("state", False)] * any(row["state"] != "complete" for row in rows)
    heads += [(labels.axis(name), True) for name in metrics]
    told_rows = []
    for row in rows:
        cells: list[Any] = [labels.setting(row.get(path)) for path in paths]
        cells += [row["state"]] * (len(heads) > len(paths) + len(metrics))
        told_rows.append([*cells, *(told.both(row, name) for name in metrics)])
    return _table(heads, told_rows)


def paper_table(answers: Sequence[Answer]) -> dict[str, Any] | None:
    """The paper's numbers, and below them ours from the ablation of its own settings; None where that is not there."""
    ours = [(answer, answer.sweep) for answer in answers if answer.name == "paper" and answer.sweep is not None]
    if not ours:
        return None
    metrics = [f"{role}.{kind}" for role in _ROLES for kind in ("base", "value", "forgetting" if role == "math" else "drop")]
    rows: list[list[Any]] = []
    for one in PAPER:
        above = {"math.forgetting": "above "}
        texts = [
            f"{above.get(name, '')}{labels.percent(name, one[name])}" if name in one else labels.MISSING for name in metrics
        ]
        rows.append(["the paper", one["model"], f"{one['samples']:,}", *texts])
    for answer, sweep in ours:
        for row in sweep.trials[sweep.trials["state"] == "complete"].to_dict("records"):
            spec = sweep.records[row["key"]].spec
            texts = [told.both(row, name) if name in sweep.trials else labels.MISSING for name in metrics]
            rows.append([f"here, {answer.seeds} seeds", spec.base.model, f"{spec.data.samples:,}", *texts])
    heads = [("whose", False), ("model", False), ("rows", True), *((labels.axis(name), True) for name in metrics)]
    return _table(heads, rows)


# ---------------------------------------------------------------------- the other files


def as_dict(answer: Answer) -> dict[str, Any]:
    """Every number that the page tells of it, in shares, bits and nats."""
    sweep = answer.sweep
    rows = sweep.trials.to_dict("records") if sweep is not None else []
    wanted = [*(sweep.space if sweep is not None else ()), "number", "key", "state"]
    wanted += [f"{name}{part}" for name in answer.table for part in ("", "_low", "_high", "_sd")]
    return {
        "schema": 1,
        "name": answer.name,
        "base": answer.base,
        "title": answer.title,
        "question": answer.question,
        "seeds": answer.seeds,
        "verdicts": [
            {
                "question": one.question,
                "answer": one.answer,
                "words": one.words,
                "change": one.change,
                "rules": [_ruling(ruling) for ruling in one.rulings],
            }
            for one in answer.verdicts
        ],
        "effects": [_effect(one) for one in answer.effects],
        "points": [{name: _plain(row[name]) for name in wanted if name in row} for row in rows],
        "caveats": list(answer.caveats),
    }


def _ruling(one: Ruling) -> dict[str, Any]:
    return {
        "effect": one.effect.name,
        "relation": one.relation,
        "bound": one.bound,
        "holds": one.holds,
        "power": one.power,
        "seeds": one.seeds,
    }


def _effect(one: Effect) -> dict[str, Any]:
    numbers = {name: _plain(getattr(one, name)) for name in ("value", "low", "high", "stderr")}
    return {
        "name": one.name,
        "text": one.text,
        "unit": one.unit,
        **numbers,
        "per_seed": list(one.per_seed),
        "documents": one.documents,
    }


def _plain(value: Any) -> Any:
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, tuple):
        return list(value)
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _markdown(answer: Answer, figures: Sequence[str]) -> str:
    parts = [f"# {markdown_text(answer.title)} ({answer.name} on {answer.base})", f"*{markdown_text(answer.question)}*"]
    parts += [markdown_text(answer.why), markdown_text(answer.design)]
    for one in answer.verdicts:
        parts += [f"## {markdown_text(one.question)}", f"**{one.answer.capitalize()}.** {markdown_text(one.words)}"]
        parts += [markdown(_rulings(one.rulings)).rstrip(), f"What would change it: {markdown_text(one.change)}"]
    parts += ["## All effects", markdown(_effects(answer.effects)).rstrip()]
    parts += [f"![{name}]({label(answer)}-{name}.png)" for name in figures]
    parts += [f"- {markdown_text(one)}" for one in answer.caveats]
    return "\n\n".join(parts) + "\n"


def _latex(answer: Answer) -> str:
    """A tabular of the verdicts' rules; needs booktabs."""
    rows = [
        " & ".join(
            latex_text(cell) for cell in (ruling.effect.text, told_value(ruling.effect), told_bound(ruling), verdict.answer)
        )
        for verdict in answer.verdicts
        for ruling in verdict.rulings
    ]
    head = " & ".join(["effect", "found (95\\,\\% interval)", "rule", "answer"])
    body = "".join(f"{{}}{row} \\\\\n" for row in rows)
    about = latex_text(f"{answer.title}, {answer.base}, {answer.seeds} seeds")
    return f"% {about}\n\\begin{{tabular}}{{llll}}\n\\toprule\n{head} \\\\\n\\midrule\n{body}\\bottomrule\n\\end{{tabular}}\n"
