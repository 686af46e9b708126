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
from scipy import special

from analysis.figures.curve import curve
from analysis.figures.scene import evenly
from analysis.formatting import labels, numbers
from analysis.formatting.table import Beside
from analysis.metrics.names import LEARNING, PART_KINDS, split_metric
from analysis.results.sweep import Sweep
from trials.ledger.record import TrialRecord

_COURSES = {"training loss (nats per token)": "losses", "KL from the base (nats per token)": "kl"}  # in a record
_IDENTITY = ["task", "doc_hash"]  # of a document within its role
QUOTED = 4  # documents quoted a role, lost and won each; spread evenly, so that none is picked by hand
SHORT, LONG = 220, 4_000  # characters of a text that are shown at once, and on demand


@dataclass(frozen=True)
class Text:
    """A quoted text: `short` is shown at once, `whole` on demand (empty if short is the whole text)."""

    short: str
    whole: str = ""


@dataclass(frozen=True)
class Example:
    """A document that the baseline and the trial answered differently."""

    texts: list[tuple[str, Text]]
    """(name, text): question, gold, baseline, trial; without those that the record lacks."""


@dataclass(frozen=True)
class Flips:
    """The documents of a role whose outcome differs from the baseline's."""

    role: str
    n: int
    lost: int
    won: int
    p: float
    """p-value of the exact McNemar test, whose null hypothesis is that losing and winning are equally likely."""
    examples: dict[str, list[Example]]
    """Under "lost" and "won"."""


@dataclass(frozen=True)
class Point:
    number: int
    row: Mapping[Any, Any]
    settings: list[tuple[str, str]]
    roles: list[tuple[str, list[Beside]]]
    """A role and its base score, own score, gain, and forgetting rate."""
    parts: list[tuple[str, list[tuple[str, Beside]]]]
    """Role, and the parts of its forgetting: (name, value)."""
    learning: list[tuple[str, Beside]]
    curves: list[tuple[str, Markup]]
    flips: list[Flips]
    phases: list[tuple[str, float, dict[str, int]]]
    """Phase, seconds, bytes by device."""
    rows: dict[str, int]
    training: dict[str, float]
    command: str
    """Empty for a record that others measured."""
    spec: str
    facts: list[tuple[str, str]]
    flags: str


def point(sweep: Sweep, row: Mapping[Any, Any], flags: str) -> Point:
    """The page of a finished trial, a row of `sweep.trials`. Documents and training are those of its first replicate."""
    record = sweep.records[row["key"]]
    names = labels.setting_names(sweep.space)
    roles = [name.removesuffix(".value") for name in sweep.metrics if name.endswith(".value")]
    kinds = ("base", "value", "gain", "forgetting")
    return Point(
        number=row["number"],
        row=row,
        settings=[(names[path], labels.setting(row[path])) for path in sweep.space],
        roles=[(role, [numbers.both(row, f"{role}.{kind}") for kind in kinds]) for role in roles],
        parts=[(role, parts) for role in roles if (parts := _parts(sweep, row, role))],
        learning=[
            (labels.axis(name).removeprefix(f"{LEARNING} "), numbers.both(row, name))
            for name in sweep.metrics
            if split_metric(name)[0] == LEARNING and not np.isnan(row[name])
        ],
        curves=[(name, drawn) for name, course in _COURSES.items() if (drawn := curve(getattr(record, course), name))],
        flips=list(_flips(sweep, row, roles)),
        phases=[(phase, seconds, record.memory.get(phase, {})) for phase, seconds in record.seconds.items()],
        rows=record.rows,
        training=record.training,
        command="" if record.imported is not None else command(sweep, row["key"]),
        spec=_settings_of(record),
        facts=facts(record),
        flags=flags,
    )


def _parts(sweep: Sweep, row: Mapping[Any, Any], role: str) -> list[tuple[str, Beside]]:
    names = [f"{role}.{kind}" for kind in PART_KINDS if f"{role}.{kind}" in sweep.metrics]
    return [(labels.axis(name).removeprefix(f"{role} "), numbers.both(row, name)) for name in names if not np.isnan(row[name])]


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
        lost, won = pairs[before > after], pairs[after > before]
        quoted = {name: evenly(rows, QUOTED).to_dict("records") for name, rows in (("lost", lost), ("won", won))}
        found = {name: [_example(one) for one in several] for name, several in quoted.items()}
        yield Flips(role, len(pairs), len(lost), len(won), mcnemar(len(lost), len(won)), found)


def mcnemar(lost: int, won: int) -> float:
    """The two-sided exact p-value: binomial over the documents that differ; 1 if none does."""
    return min(1.0, 2 * float(special.bdtr(min(lost, won), lost + won, 0.5)))


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


def _example(row: Mapping[Any, Any]) -> Example:
    what = {"question_base": "question", "target_base": "gold", "response_base": "baseline", "response_tuned": "this trial"}
    found = [(name, row.get(column)) for column, name in what.items()]
    return Example([(name, shortened(_readable(text))) for name, text in found if isinstance(text, str) and text.strip()])


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


def shortened(text: str) -> Text:
    if len(text) <= SHORT:
        return Text(text)
    whole = text if len(text) <= LONG else f"{text[:LONG]} … ({len(text) - LONG} more characters)"
    return Text(text[:SHORT].rsplit(" ", 1)[0] + " …", whole)


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
