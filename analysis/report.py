"""report.html: a sweep's result on one page that needs nothing else: words first, then picture, tables and config."""

import base64
import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from analysis import labels
from analysis.export import TEMPLATES, table_of
from analysis.load import Sweep
from analysis.metrics import split_metric
from analysis.plots import DARK, LIGHT, front_figure, png
from trials.record import TrialRecord
from trials.storage import write_text

STEADY = 10  # a forgetting rate is read only where its base is above this many standard errors


def write_report(sweep: Sweep, folder: Path | None = None) -> Path:
    """Writes report.html to `folder` (the sweep's own when left out)."""
    path = (folder or sweep.folder) / "report.html"
    write_text(path, report(sweep))
    return path


def report(sweep: Sweep) -> str:
    """The page as text."""
    best = sweep.front.iloc[0] if len(sweep.front) else None
    pictures = {
        name: _inline(png(front_figure(sweep, theme, table=False))) for name, theme in (("light", LIGHT), ("dark", DARK))
    }
    headline_text = headline(sweep)
    return TEMPLATES.get_template("report.html.j2").render(
        sweep=sweep,
        headline=headline_text,
        notices=notices(sweep),
        pictures=pictures,
        alt=f"Trials of {sweep.name} in the plane of its objectives. {headline_text}",
        caption=_caption(sweep),
        front=table_of(sweep, sweep.front),
        errors=_errors(sweep),
        best=best,
        command=_command(sweep, best["key"]) if best is not None else "",
        failures=sweep.failures.to_dict("records"),
        trials=table_of(sweep, sweep.trials, state=True),
        baselines=_baselines(sweep),
        phases=_phases(sweep),
        machines=_machines(list(sweep.records.values())),
        progress=_progress(sweep),
    )


def headline(sweep: Sweep) -> str:
    """The result in one or two sentences: how many trials keep the constraints, and the best first objective among them."""
    complete = int((sweep.trials["state"] == "complete").sum())
    feasible = int(sweep.trials["feasible"].sum())
    if not len(sweep.trials):
        return "No trial has been asked for yet."
    if not complete:
        failed = int((sweep.trials["state"] == "failed").sum())
        return (
            f"All {failed} trials failed."
            if failed == len(sweep.trials)
            else f"None of {len(sweep.trials)} trials has finished yet."
        )
    words = " and ".join(labels.constraint_words(constraint) for constraint in sweep.constraints)
    finished = f"{complete} finished trial{'s' if complete > 1 else ''}"
    keep = "keeps" if feasible <= 1 else "keep"
    text = f"{feasible or 'None'} of {finished} {keep} {words}" if words else finished
    if not len(sweep.front):
        return f"{text}."
    objective, best = sweep.objectives[0], sweep.front.iloc[0]
    among = " among them" if words else ""
    name = labels.metric_name(objective.metric)
    level = labels.percent(objective.metric, best[objective.metric], best[f"{objective.metric}_se"])
    return f"{text}; best {name}{among} {level}{labels.unit(objective.metric)} (trial #{best['number']})."


def notices(sweep: Sweep) -> list[str]:
    """What a reader has to know before believing the numbers, a sentence each."""
    found = []
    if sweep.half is not None:
        found.append(quoted(sweep))
    missing = sweep.baselines[(sweep.baselines["state"] != "complete") & (sweep.baselines["trials"] > 0)]
    for row in missing.to_dict("records"):
        found.append(f"Baseline {row['key']} is {row['state']}: {row['trials']} trials have nothing to be measured against.")
    found += _unsteady(sweep)
    machines = _hardware([record for record in sweep.records.values() if record.state == "complete"])
    if len(machines) > 1:
        found.append(f"The records come from {len(machines)} kinds of hardware: differences may be theirs.")
    return found


def quoted(sweep: Sweep) -> str:
    """Which documents the metrics are of, where the search saw some of them alone."""
    counts = [f"{role} {int(sweep.baselines[f'{role}.n'].max())}" for role in _roles(sweep)]
    told = f" ({', '.join(counts)} documents)" if counts else ""
    return (
        f"Metrics are quoted on the {sweep.half} half of the documents{told}; the search saw the other half alone, and that "
        "one decided which trials are feasible and on the front. A constraint may therefore look broken by a little."
    )


def _roles(sweep: Sweep) -> list[str]:
    return [name.removesuffix(".n") for name in sweep.baselines.columns if name.endswith(".n")] if len(sweep.baselines) else []


def _unsteady(sweep: Sweep) -> list[str]:
    """A sentence for each role whose forgetting rate is asked for on a base too small for it."""
    roles = dict.fromkeys(split_metric(name)[0] for name in sweep.judged if split_metric(name)[1] == "forgetting")
    found = []
    for role in roles:
        for row in sweep.baselines[sweep.baselines["state"] == "complete"].to_dict("records"):
            value, error = row.get(f"{role}.value"), row.get(f"{role}.value_se")
            if value is None or error is None or pd.isna(value):
                continue
            base = labels.percent(f"{role}.base", value, error)
            if value == 0:
                found.append(f"The {role} base is 0 %, so its forgetting rate is undefined; read the drop.")
            elif value < STEADY * error:
                found.append(
                    f"The {role} base is {base} %, less than {STEADY} standard errors: read the drop, not the forgetting rate."
                )
    return found


def _errors(sweep: Sweep) -> str:
    complete = sweep.trials[sweep.trials["state"] == "complete"]
    how = (
        "paired with the baseline document by document"
        if complete["paired"].all()
        else "not paired for every trial, and then too wide"
    )
    picked = "that the best of many trials was picked: a point picked here looks better than it is."
    if sweep.replicates > 1:
        return (
            f"Metrics are in percent, means over up to {sweep.replicates} replicates (the same setting under other seeds). "
            f"± is one standard error over replicates and documents, {how}; sd is the standard deviation between replicates. "
            f"The error does not hold {picked}"
        )
    return (
        f"Metrics are in percent. ± is one standard error over documents, {how}. It holds neither the spread between "
        f"training seeds nor {picked}"
    )


def _caption(sweep: Sweep) -> str:
    shade = (
        " The shaded area keeps the constraints."
        if any(one.metric in [bound.metric for bound in sweep.constraints] for one in sweep.objectives[:2])
        else ""
    )
    over = "replicates and documents" if sweep.replicates > 1 else "documents"
    return f"Each finished trial, ± one standard error over {over}.{shade}"


def _progress(sweep: Sweep) -> str:
    states = sweep.trials["state"].value_counts()
    counted = ", ".join(f"{states[state]} {state}" for state in ("complete", "failed", "pending") if state in states)
    budget = f" of a budget of {sweep.budget}" if sweep.budget is not None else ""
    return f"{len(sweep.trials)} trials{budget}{': ' if counted else ''}{counted}."


def _command(sweep: Sweep, key: str) -> str:
    """What runs the trial again: into a storage of its own, for the sweep's ledger has its record already."""
    words = ["python", "-m", "trials", str(sweep.ledger.folder(key) / "spec.yaml"), "--storage", "repeated"]
    record = sweep.records.get(key)
    if record is not None and record.hardware.get("threads", 1) != 1:
        words += ["--threads", str(record.hardware["threads"])]
    config = yaml.safe_load(sweep.config) if sweep.config else None
    if isinstance(config, dict) and config.get("hub_mirror"):
        words += ["--hub-mirror", str(config["hub_mirror"])]
    return shlex.join(words)


def _inline(picture: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(picture).decode()


def _table(heads: Sequence[tuple[str, bool]], rows: Sequence[Sequence[Any]], kinds: Sequence[str] = ()) -> dict[str, Any]:
    """A table as the templates show it, from heads (text, is a number) and rows of texts."""
    kinds = kinds or [""] * len(heads)
    cells = [{"kind": "", "cells": [(text, text, kind) for text, kind in zip(row, kinds, strict=True)]} for row in rows]
    return {"heads": [(text, "", is_number) for text, is_number in heads], "rows": cells}


def _baselines(sweep: Sweep) -> dict[str, Any]:
    frame = sweep.baselines
    roles = [column.removesuffix(".n") for column in frame.columns if column.endswith(".n")]
    heads = [("model", False), ("quantisation", False), ("state", False), ("trials", True)]
    heads += [head for role in roles for head in ((f"{role} score (%)", True), ("documents", True))] + [
        ("time", True),
        ("key", False),
    ]
    rows = []
    for row in frame.to_dict("records"):
        record = sweep.records.get(row["key"])
        base = [record.spec.base.model, record.spec.base.quantization] if record else [labels.MISSING] * 2
        scores = [
            (labels.percent(f"{role}.value", row[f"{role}.value"], row[f"{role}.value_se"]), row[f"{role}.n"]) for role in roles
        ]
        rows.append(
            [
                *base,
                row["state"],
                row["trials"],
                *(cell for pair in scores for cell in pair),
                labels.duration(row["seconds"]),
                row["key"],
            ]
        )
    return _table(heads, rows, [""] * (len(heads) - 1) + ["key"])


def _phases(sweep: Sweep) -> dict[str, Any]:
    """Time of each phase over all records that have it, failed ones included, the longest first."""
    seconds = pd.DataFrame([record.seconds for record in sweep.records.values()], dtype=float)
    order = seconds.sum().sort_values(ascending=False).index
    rows = [
        [
            phase,
            seconds[phase].count(),
            *(labels.duration(measure) for measure in (seconds[phase].median(), seconds[phase].max(), seconds[phase].sum())),
        ]
        for phase in order
    ]
    return _table([("phase", False), ("records", True), ("median", True), ("longest", True), ("together", True)], rows)


def _hardware(records: Sequence[TrialRecord]) -> set[str]:
    return {json.dumps(record.hardware, sort_keys=True) for record in records}


def _machines(records: Sequence[TrialRecord]) -> list[dict[str, Any]]:
    """Each combination of versions and hardware, the most frequent first."""
    counts: dict[str, int] = {}
    facts: dict[str, dict[str, Any]] = {}
    for record in records:
        found = record.hardware | record.versions | ({"git": record.git} if record.git else {})
        text = json.dumps(found, sort_keys=True, default=str)
        counts[text] = counts.get(text, 0) + 1
        facts[text] = found
    order = sorted((text for text in counts if facts[text]), key=lambda text: -counts[text])
    heads = [("what", False), ("which", False)]
    return [
        {
            "records": counts[text],
            "of": len(records),
            "table": _table(heads, [[name, _fact(value)] for name, value in facts[text].items()], ["", "text"]),
        }
        for text in order
    ]


def _fact(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str)
