"""report.html: a sweep's result on one self-contained page: its findings, the front, the front's points, everything else.

report.json has the numbers of the page that front.json and trials.csv lack.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from markupsafe import Markup

from analysis.explore import confirmation as confirming
from analysis.explore import mix_law
from analysis.explore.cost import cost, hours_name, phases
from analysis.explore.failure_signatures import CAVEATS, PAPER, SIGNATURES, flags, in_papers_roles, verdicts
from analysis.export.files import export_trials
from analysis.export.templates import HTML
from analysis.export.trial_table import trial_table
from analysis.figures.front import front_svg
from analysis.figures.inline import inline
from analysis.figures.sweep import FIGURES
from analysis.formatting import labels, numbers
from analysis.formatting.table import Column, Table
from analysis.report.findings import claims, headline, notices
from analysis.report.trial_page import Point, facts, point
from analysis.results import schema as col
from analysis.results.sweep import Sweep
from trials.errors import InputError
from trials.ledger.record import TrialRecord
from trials.ledger.storage import write_text

PAGES = 20  # front points that have a page; nobody reads more
TRACED = 6_000  # characters of a traceback's end


def write_report(sweep: Sweep, folder: Path | None = None) -> Path:
    """Writes report.html, report.json and trials.csv to `folder` (default: the sweep's own); returns the first path."""
    path = (folder or sweep.folder) / "report.html"
    points = _points(sweep)
    write_text(path.with_name("report.json"), json.dumps(report_numbers(sweep, points), indent=1, allow_nan=False) + "\n")
    export_trials(sweep, ["csv"], path.parent)
    write_text(path, report(sweep, points))
    return path


def report(sweep: Sweep, points: Sequence[Point] | None = None) -> str:
    """The page as text."""
    points = _points(sweep) if points is None else points
    pages, marks = [int(one.row["number"]) for one in points], _flags(sweep)
    confirmed, unreadable = _confirmation(sweep)
    return HTML.get_template("report.html.j2").render(
        sweep=sweep,
        labels=labels,
        numbers=numbers,
        headline=headline(sweep),
        claims=claims(sweep),
        notices=[*notices(sweep), *unreadable],
        picture=front_svg(sweep, pages),
        all_paired=bool(sweep.complete["paired"].all()),
        front=trial_table(sweep, sweep.front, marks, pages, brief=True),
        confirmed=confirmed and {"table": confirming.table(confirmed), "sentences": confirming.sentences(confirmed)},
        mix=_mix(sweep),
        points=points,
        failures=_failures(sweep),
        figures=_figures(sweep),
        paper=_paper(sweep, pages) if in_papers_roles(sweep) else None,
        caveats=CAVEATS,
        trials=trial_table(sweep, sweep.trials, marks, pages, brief=False),
        baselines=_baselines(sweep),
        cost=_cost(sweep),
        phases=_phases(sweep),
        machines=_machines(list(sweep.records.values())),
    )


def _confirmation(sweep: Sweep) -> tuple[confirming.Confirmation | None, list[str]]:
    """What `slimsweep confirm` measured of this sweep, and a notice where that cannot be read."""
    try:
        return confirming.confirmation(sweep), []
    except InputError as error:
        return None, [f"What was trained again cannot be read: {error}"]


def _mix(sweep: Sweep) -> dict[str, Any] | None:
    found = mix_law.laws(sweep)
    return {"sentences": mix_law.sentences(found), "table": mix_law.table(found)} if found else None


def _flags(sweep: Sweep) -> pd.Series:
    """The failure signatures of each trial in words, by the frame's index."""
    found = verdicts(sweep)
    return pd.Series([flags(row) for _, row in found.iterrows()], index=found.index, dtype=object)


def _points(sweep: Sweep) -> list[Point]:
    """The pages of the at most PAGES front points with the highest probability, in the front's order.

    Of finished trials where the front is empty: one asks what a training lost above all where the base beats it.
    """
    marks = _flags(sweep)
    shown = sweep.front if len(sweep.front) else sweep.complete
    likely = shown.sort_values("p_front", ascending=False, kind="stable").index[:PAGES]
    rows = shown[shown.index.isin(likely)]
    return [point(sweep, row, marks[index]) for index, row in zip(rows.index, rows.to_dict("records"), strict=True)]


def report_numbers(sweep: Sweep, points: Sequence[Point]) -> dict[str, Any]:
    """Content of report.json, as plain JSON values.

    `headline`, `claims` and `notices` are the sentences; `signatures` has each failure signature's metric, bound, and the
    numbers of the trials by verdict; `paper` is its table in shares; `baselines` are the rows of `sweep.baselines`; `cost` and
    `phases` are those of `analysis.explore.cost`; `confirmed` is that of `analysis.explore.confirmation`, `mix` that of
    `analysis.explore.mix_law`; `hypervolume` has its `reference` and interval; `points` has for each page the number, key,
    seconds and bytes by phase, training, rows, losses, KL, and per role `flips`: documents, lost, won, p.
    """
    found, (confirmed, _) = verdicts(sweep), _confirmation(sweep)
    return {
        "schema": 1,
        "headline": headline(sweep),
        "claims": claims(sweep),
        "notices": notices(sweep),
        "signatures": [
            {"name": one.name, "metric": one.metric, "bound": one.bound}
            | {verdict: sweep.trials.loc[found[one.name] == verdict, "number"].tolist() for verdict in ("yes", "cannot tell")}
            for one in SIGNATURES
        ],
        "paper": list(PAPER),
        "baselines": json.loads(sweep.baselines.to_json(orient="records", double_precision=15)),
        "cost": cost(sweep),
        "phases": phases(sweep),
        "hypervolume": sweep.hypervolume,
        "hypervolume_interval": sweep.hypervolume_interval,
        "reference": list(sweep.reference),
        "confirmed": confirmed and confirming.as_dict(confirmed),
        "mix": mix_law.as_dict(mix_law.laws(sweep)),
        "points": [_numbers(one) for one in points],
    }


def _numbers(one: Point) -> dict[str, Any]:
    flips = [{name: getattr(flip, name) for name in ("role", "documents", "lost", "won", "p")} for flip in one.flips]
    own = {name: getattr(one.record, name) for name in ("seconds", "memory", "training", "rows", "losses", "kl")}
    return {"number": one.row["number"], "key": one.row["key"], "flips": flips} | own


def _failures(sweep: Sweep) -> list[dict[str, Any]]:
    """Equal failures together, the most frequent first."""
    found = []
    for (kind, message), rows in sweep.failures.groupby(["kind", "message"], sort=False):
        trace = str(rows["traceback"].iloc[0])
        cut = len(trace) - TRACED
        found.append(
            {
                "what": rows["what"].tolist(),
                "keys": [key for key in rows["key"] if key],
                "kind": kind,
                "message": message,
                "traceback": trace if cut <= 0 else f"({cut} characters before)\n{trace[cut:]}",
            }
        )
    return sorted(found, key=lambda one: -len(one["what"]))


def _figures(sweep: Sweep) -> list[tuple[str, str, Markup]]:
    """(title, caption, picture) of those that this sweep has data for. The front is at the top of the page."""
    drawn = [(name, one, one.draw(sweep)) for name, one in FIGURES.items() if name != "front"]
    return [
        (one.title, one.caption(sweep), inline(figure, name, f"{one.title}. {one.caption(sweep)}"))
        for name, one, figure in drawn
        if figure is not None
    ]


def _paper(sweep: Sweep, pages: Sequence[int]) -> Table:
    """The paper's own table, followed by the points of the front that have a page."""
    metrics = ("commonsense.base", "commonsense.value", "math.forgetting", "knowledge.drop")
    heads = [Column(""), Column("model"), Column("samples", number=True)]
    heads += [Column(labels.column(name), number=True) for name in metrics]
    rows: list[list[Any]] = []
    for one in PAPER:
        texts = [labels.percent(name, one.get(name), digits=2 if name.startswith("c") else 0) for name in metrics]
        texts[2] = f"above {texts[2]}" if "math.forgetting" in one else texts[2]
        rows.append(["paper", one["model"], f"{one['samples']:,}", *texts])
    for row in sweep.front[sweep.front["number"].isin(pages)].to_dict("records"):
        record = sweep.records[row["key"]]
        model, samples = record.spec.base.model, f"{record.spec.data.samples:,}"
        if record.imported is not None:
            model, samples = record.imported.model, labels.MISSING
        cells = [numbers.both(row, name) if name in sweep.metrics else labels.MISSING for name in metrics]
        rows.append([f"#{row['number']}", model, samples, *cells])
    return Table.of(heads, rows)


def _baselines(sweep: Sweep) -> Table:
    frame = sweep.baselines
    roles = [column.removesuffix(".n") for column in frame.columns if column.endswith(".n")]
    heads = [Column("model"), Column("quantisation"), Column("state"), Column("trials", number=True)]
    for role in roles:
        heads += [Column(labels.column(f"{role}.value"), number=True), Column("documents", number=True)]
    heads += [Column("time", number=True), Column("key", kind="key")]
    rows: list[list[Any]] = []
    for row in frame.to_dict("records"):
        record = sweep.records.get(row["key"])
        cells = [record.spec.base.model, record.spec.base.quantization] if record else [labels.MISSING] * 2
        cells += [row["state"], row["trials"]]
        for role in roles:
            cells += [labels.percent(f"{role}.value", row[f"{role}.value"], row[col.se(f"{role}.value")]), row[f"{role}.n"]]
        rows.append([*cells, numbers.duration(row["seconds"]), row["key"]])
    return Table.of(heads, rows)


def _cost(sweep: Sweep) -> Table:
    found = cost(sweep)
    hours = {f"{hours_name(sweep)} spent": "gpu_hours", "hours of the sweep": "hours", "hours of all records": "trial_hours"}
    rows = [(name, f"{found[key]:.2f}") for name, key in hours.items() if found[key] is not None]
    rows += [(f"a trial, {key}", numbers.duration(found[key])) for key in ("median", "longest") if found["trials"]]
    return Table.of([Column("cost"), Column("", number=True)], rows)


def _phases(sweep: Sweep) -> Table:
    names = ("median", "longest", "together")
    rows = [(one["phase"], one["records"], *(numbers.duration(one[name]) for name in names)) for one in phases(sweep)]
    return Table.of([Column("phase"), *(Column(name, number=True) for name in ("records", *names))], rows)


def _machines(records: Sequence[TrialRecord]) -> list[dict[str, Any]]:
    """Each combination of versions and hardware, the most frequent first."""
    counts: dict[tuple[tuple[str, str], ...], int] = {}
    for record in records:
        found = tuple(facts(record))
        counts[found] = counts.get(found, 0) + 1
    order = sorted((found for found in counts if found), key=lambda found: -counts[found])
    heads = [Column("component"), Column("version", kind="text")]
    return [{"records": counts[found], "of": len(records), "table": Table.of(heads, found)} for found in order]
