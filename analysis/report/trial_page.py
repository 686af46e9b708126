"""The content of a trial's page: metrics beside the baseline's, curves, documents lost and won, the command to repeat it."""

import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import yaml
from markupsafe import Markup

from analysis.figures.curve import curve
from analysis.figures.scene import evenly
from analysis.formatting import labels, numbers
from analysis.formatting.table import Beside, Column, Table
from analysis.metrics.names import JOINT_KINDS, LEARNING, LEARNING_KINDS, PART_KINDS, joint
from analysis.results.sweep import Sweep
from analysis.stats.intervals import sign_test
from trials.ledger.record import TrialRecord

_COURSES = {"training loss (nats per token)": "losses", "KL from the base (nats per token)": "kl"}  # in a record
_IDENTITY = ["task", "doc_hash"]  # of a document within its role
QUOTED = 4  # documents quoted a role, lost and won each; spread evenly, so that none is picked by hand
SHORT, LONG = 220, 4_000  # characters of a text that are shown at once, and on demand


@dataclass(frozen=True)
class Flips:
    """The documents of a role whose outcome differs from the baseline's."""

    role: str
    documents: int
    lost: int
    won: int
    p: float
    """p-value of intervals.sign_test, over clusters of related documents."""
    examples: dict[str, list[list[tuple[str, tuple[str, str]]]]]
    """Under "lost" and "won", some documents: question, gold, baseline and trial, by name with its text (see `shortened`)."""


@dataclass(frozen=True)
class Point:
    """A finished trial, a row of `Sweep.trials`. Record, curves, flips and command are those of its first replicate."""

    row: Mapping[Any, Any]
    record: TrialRecord
    flags: str
    """Its failure signatures."""
    settings: list[tuple[str, str]]
    roles: Table
    phases: Table
    parts: list[tuple[str, list[tuple[str, Beside]]]]
    """A role and its own forgetting by part, the role `learning` and its metrics: (name, value)."""
    curves: list[tuple[str, Markup]]
    flips: list[Flips]
    command: str
    """Empty for a record that others measured."""
    spec: str
    facts: list[tuple[str, str]]


def point(sweep: Sweep, row: Mapping[Any, Any], flags: str) -> Point:
    record = sweep.records[row["key"]]
    names = labels.setting_names(sweep.space)
    roles = [name.removesuffix(".value") for name in sweep.metrics if name.endswith(".value")]
    several = dict.fromkeys(name.partition(".")[0] for name in joint(sweep.metrics))
    curves = ((name, curve(getattr(record, source), name, f"{source}-{row['number']}")) for name, source in _COURSES.items())
    return Point(
        row=row,
        record=record,
        flags=flags,
        settings=[(names[path], labels.setting(row[path])) for path in sweep.space],
        roles=_roles(roles, row),
        phases=_phases(record),
        parts=[(role, parts) for role in (LEARNING, *roles, *several) if (parts := _parts(sweep, row, role))],
        curves=[(name, drawn) for name, drawn in curves if drawn],
        flips=list(_flips(sweep, row, roles)),
        command="" if record.imported is not None else command(sweep, row["key"]),
        spec=_settings_of(record),
        facts=facts(record),
    )


def _roles(roles: Sequence[str], row: Mapping[Any, Any]) -> Table:
    kinds = {"base": "baseline", "value": "this trial", "gain": "gain", "forgetting": "forgetting (% of the base)"}
    names, units = list(roles), [labels.unit(f"{role}.value") for role in roles]
    heads = dict(kinds)
    if all(units):
        heads |= {"base": "baseline (%)", "value": "this trial (%)", "gain": "gain (points)"}
    else:  # a role whose score is no share is in units of its own
        names = [f"{role}{unit and ' (%)'}" for role, unit in zip(roles, units, strict=True)]
    cells = [[name, *(numbers.both(row, f"{role}.{kind}") for kind in kinds)] for name, role in zip(names, roles, strict=True)]
    return Table.of([Column("role"), *(Column(name, number=True) for name in heads.values())], cells)


def _phases(record: TrialRecord) -> Table:
    rows = []
    for phase, seconds in record.seconds.items():
        sizes = [f"{device} {numbers.memory(size)}" for device, size in record.memory.get(phase, {}).items()]
        rows.append([phase, numbers.duration(seconds), ", ".join(sizes)])
    return Table.of([Column("phase"), Column("time", number=True), Column("memory", number=True)], rows)


def _parts(sweep: Sweep, row: Mapping[Any, Any], role: str) -> list[tuple[str, Beside]]:
    kinds = LEARNING_KINDS if role == LEARNING else JOINT_KINDS if "+" in role else tuple(PART_KINDS)
    names = [name for kind in kinds if (name := f"{role}.{kind}") in sweep.metrics and not np.isnan(row[name])]
    return [(labels.axis(name).removeprefix(f"{role} "), numbers.both(row, name)) for name in names]


def _flips(sweep: Sweep, row: Mapping[Any, Any], roles: Sequence[str]) -> Iterator[Flips]:
    """One for each role whose documents are there, pair, and are scored right or wrong."""
    tuned, base = (_documents(sweep, key) for key in (row["key"], row["baseline"]))
    if tuned is None or base is None:
        return
    for role in roles:
        pairs = _paired(tuned[tuned["role"] == role], base[base["role"] == role])
        before, after = pairs["score_base"].to_numpy(dtype=float), pairs["score_tuned"].to_numpy(dtype=float)
        if not len(pairs) or not np.isin([before, after], (0.0, 1.0)).all():
            continue
        if not sweep.records[row["baseline"]].scale(role).higher_is_better:
            before, after = 1 - before, 1 - after
        lost, won = pairs[before > after], pairs[after > before]
        examples = {
            name: [_example(one) for one in evenly(rows, QUOTED).to_dict("records")]
            for name, rows in (("lost", lost), ("won", won))
        }
        # the baseline's documents alone name their clusters; without any, each document is its own
        clusters = pairs["cluster_base"] if "cluster_base" in pairs else np.arange(len(pairs))
        p = sign_test(pd.Series(after - before).groupby(np.asarray(clusters)).sum().to_numpy())
        yield Flips(role, len(pairs), len(lost), len(won), p, examples)


def _documents(sweep: Sweep, key: str) -> pd.DataFrame | None:
    """The documents of the reported half; None if they are missing or damaged."""
    try:
        found = sweep.ledger.documents(key)
    except (OSError, ValueError):
        return None
    return found[found["half"] == sweep.half] if sweep.half is not None and "half" in found else found


def _paired(tuned: pd.DataFrame, base: pd.DataFrame) -> pd.DataFrame:
    """Documents that both have answered, one row each, with columns NAME_tuned and NAME_base."""
    # a data set may hold a document twice: the copies are matched by their order
    frames = [one.assign(copy=one.groupby(_IDENTITY).cumcount()).set_index([*_IDENTITY, "copy"]) for one in (tuned, base)]
    return frames[0].add_suffix("_tuned").join(frames[1].add_suffix("_base"), how="inner")


def _example(row: Mapping[Any, Any]) -> list[tuple[str, tuple[str, str]]]:
    """The texts that the record has."""
    what = {"question_base": "question", "target_base": "gold", "response_base": "baseline", "response_tuned": "this trial"}
    found = [(name, row.get(column)) for column, name in what.items()]
    return [(name, shortened(_readable(text))) for name, text in found if isinstance(text, str) and text.strip()]


def _readable(text: str) -> str:
    """Log-likelihoods of choices, as lm-eval writes them, with the numbers of their choices; any other text unchanged."""
    words = text.split()
    try:
        levels = [float(word) for word in words]
    except ValueError:
        return text.strip()
    if len(levels) < 2:
        return text.strip()
    return "log-likelihoods " + ", ".join(f"({place}) {level:.2f}" for place, level in enumerate(levels))


def shortened(text: str) -> tuple[str, str]:
    """What is shown at once, and on demand; the latter is empty for a short text."""
    if len(text) <= SHORT:
        return text, ""
    whole = text if len(text) <= LONG else f"{text[:LONG]} … ({len(text) - LONG} more characters)"
    return text[:SHORT].rsplit(" ", 1)[0] + " …", whole


def command(sweep: Sweep, key: str) -> str:
    """The command that repeats the trial in a storage of its own: the sweep's ledger already has its record."""
    words = ["python", "-m", "trials", str(sweep.ledger.folder(key) / "spec.yaml"), "--storage", "repeated"]
    record = sweep.records.get(key)
    if record is not None and record.hardware.get("threads", 1) != 1:
        words += ["--threads", str(record.hardware["threads"])]
    if sweep.hub_mirror:
        words += ["--hub-mirror", sweep.hub_mirror]
    return shlex.join(words)


def _settings_of(record: TrialRecord) -> str:
    """The record's spec as YAML; of one that others measured, what is known of the measurement."""
    known = record.spec if record.imported is None else record.imported
    return str(yaml.safe_dump(known.model_dump(mode="json"), sort_keys=False))


def facts(record: TrialRecord) -> list[tuple[str, str]]:
    """Hardware, versions and commit."""
    found = record.hardware | record.versions | ({"git": record.git} if record.git else {})
    return [(name, value if isinstance(value, str) else json.dumps(value, default=str)) for name, value in found.items()]
