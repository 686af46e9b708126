"""Found and confirmed: the front's settings beside the same settings, trained again under fresh seeds.

The best of many trials owe a part of their values to the luck of their seeds. A second training has no part in that luck.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from analysis.export.plain import plain
from analysis.formatting import labels, numbers
from analysis.formatting.table import Column, Table
from analysis.results import schema as col
from analysis.results.load import load
from analysis.results.sweep import Sweep
from trials.ledger.storage import exists

_SUFFIX = "-confirmed"
SEEDS = ("data.seed", "train.seed")

Row = Mapping[Any, Any]


@dataclass(frozen=True)
class Confirmation:
    """`confirmed` is a sweep of `found`'s settings under seeds that `found` has not seen."""

    found: Sweep
    confirmed: Sweep
    pairs: tuple[tuple[Row, Row], ...]
    """Rows of `found.trials` and `confirmed.trials` with the same settings, both complete, best found first."""


def folder_of(found: Sweep) -> Path:
    """The folder of the sweep that confirms `found`."""
    return found.folder.with_name(f"{found.folder.name}{_SUFFIX}")


@lru_cache(maxsize=1)  # a report takes it twice, and a sweep takes seconds to load
def confirmation(found: Sweep) -> Confirmation | None:
    """None where no setting has been confirmed yet. Raises InputError where the confirming sweep cannot be read."""
    if not exists(folder_of(found) / "manifest.json"):
        return None
    confirmed = load(folder_of(found))
    if confirms(confirmed.config) != found.name or confirmed.judged != found.judged:
        return None  # somebody's own sweep of that name
    again = {_settings(row, confirmed): row for row in confirmed.complete.to_dict("records")}
    pairs = []
    for row in _candidates(found):  # trials that differ in their seeds alone are one setting, which the first stands for
        if (other := again.pop(_settings(row, found), None)) is not None:
            pairs.append((row, other))
    return Confirmation(found, confirmed, tuple(pairs)) if pairs else None


def _candidates(found: Sweep) -> list[dict[Any, Any]]:
    """The front, then every other finished trial: the front may have changed since."""
    others = found.complete[~found.complete["on_front"]]
    return [*found.front.to_dict("records"), *others.to_dict("records")]


def _settings(row: Row, sweep: Sweep) -> str:
    """The key of the trial but for its seeds. The frames' columns would differ in their types, and where a condition left a
    setting out."""
    spec = sweep.records[row["key"]].spec
    parts = {name: getattr(spec, name).model_copy(update={"seed": 0}) for name in ("data", "train")}
    return spec.model_copy(update=parts).key


def confirms(config: str) -> str | None:
    """The name of the sweep that a sweep with this sweep.yaml confirms; None for any other sweep."""
    try:
        data = yaml.safe_load(config)
        found = data["about"]["confirms"]
    except (yaml.YAMLError, RecursionError, TypeError, KeyError):
        return None
    return found if isinstance(found, str) else None


def table(one: Confirmation) -> Table:
    """A row for each confirmed setting: its trial, the settings, and each metric that decides as found and as confirmed."""
    found, confirmed = ([pair[side] for pair in one.pairs] for side in (0, 1))
    columns = [Column("trial", "its number in the search", number=True, cells=[f"#{row['number']}" for row in found])]
    for path, name in labels.setting_names([path for path in one.found.space if path not in SEEDS]).items():
        columns.append(Column(name, path, cells=[labels.setting(row[path]) for row in found]))
    for metric in one.found.judged:
        name = labels.column(metric)
        shown = [numbers.both(row, metric) for row in found]
        columns.append(Column(f"{name}, found", "in the search, with its 95 % interval", number=True, cells=shown))
        shown = [numbers.both(row, metric) for row in confirmed]
        columns.append(Column(f"{name}, confirmed", "under fresh seeds, with its 95 % interval", number=True, cells=shown))
    seeds = [str(row["replicates"]) for row in confirmed]
    return Table([*columns, Column("seeds", "fresh ones", number=True, cells=seeds)])


def sentences(one: Confirmation) -> list[str]:
    """What the fresh seeds say, first of the best."""
    first, again = one.pairs[0]
    metric = one.found.objectives[0].metric
    name = labels.metric_name(metric)
    text = f"Trial #{first['number']} was found with {name} {numbers.sentence(first, metric)}"
    if (best := first[col.corrected(metric)]) == best:
        text += f", {labels.percent(metric, best)}{labels.unit(metric)} corrected for selection"
    seeds = "1 fresh seed" if again["replicates"] == 1 else f"{again['replicates']} fresh seeds"
    found = [f"{text}; under {seeds} it has {numbers.sentence(again, metric)}."]
    if one.found.constraints:
        again_kept = [bool(row["feasible"]) for first, row in one.pairs if first["feasible"]]
        kept = sum(again_kept)
        every = "the constraint" if len(one.found.constraints) == 1 else "every constraint"
        verb = "keeps" if kept == 1 else "keep"
        found.append(f"Of {len(again_kept)} confirmed settings that kept {every}, {kept or 'none'} {verb} it again.")
    ahead = sum(bool(row["on_front"]) for _, row in one.pairs)
    verb = "is" if ahead == 1 else "are"
    found.append(f"{ahead or 'None'} of the {len(one.pairs)} confirmed settings {verb} on the front of these.")
    return found


def as_dict(one: Confirmation) -> dict[str, Any]:
    """The rows as plain JSON values; metrics are shares, bits per byte or nats."""
    rows = []
    for first, again in one.pairs:
        metrics = {
            metric: {
                "found": plain(first[metric]),
                "corrected": plain(first.get(col.corrected(metric))),
                "confirmed": {name: plain(again[column]) for name, column in col.interval(metric).items()},
            }
            for metric in one.found.judged
        }
        rows.append(
            {
                "number": int(first["number"]),
                "found": first["key"],
                "confirmed": again["key"],
                "seeds": int(again["replicates"]),
            }
            | {"feasible": bool(again["feasible"]), "on_front": bool(again["on_front"]), "metrics": metrics}
        )
    return {"sentences": sentences(one), "settings": rows}
