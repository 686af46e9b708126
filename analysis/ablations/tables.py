"""The tables of an ablation's page: verdicts, effects, points, and the paper's results beside ours."""

from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from analysis.ablations import words
from analysis.ablations.answer import Answer, Verdict
from analysis.ablations.points import path_name
from analysis.explore.failure_signatures import PAPER
from analysis.formatting import labels, numbers
from analysis.formatting.table import Beside, Column, Table
from analysis.metrics.names import split_metric
from analysis.results import schema as col

_PER_SEED = 6  # more values are not listed one by one
_SCORES = ("base", "value", "gain", "forgetting")  # of a role, in the paper's table


def summary(answers: dict[str, Answer]) -> Table:
    """All verdicts; `answers` by the id of their section. The base is named only if there are several."""
    # a column of equal names would take the place of the questions on a phone
    several = len({one.base for one in answers.values()}) > 1
    heads = [Column("ablation"), Column("base"), Column("answer"), Column("question", kind="text")]
    heads.append(Column("decisive effect", number=True, kind="decides"))
    rows = []
    for stem, one in answers.items():
        link = Markup('<a href="#{}">{}</a>').format(stem, one.name)
        for verdict in one.verdicts:
            shown = Markup('<b class="{}">{}</b>').format(verdict.answer.replace(" ", "-"), verdict.answer)
            rows.append([link, one.base, shown, verdict.question, _decisive(verdict)])
    table = Table.of(heads, rows)
    return table if several else Table([one for one in table.columns if one.name != "base"])


def _decisive(verdict: Verdict) -> Beside:
    """The effect of the first rule with the verdict's own outcome."""
    outcome = {"yes": True, "no": False, "cannot tell": None}[verdict.answer]
    first = next(iter(sorted(verdict.rulings, key=lambda one: one.holds is not outcome)), None)
    if first is None:
        return Beside(labels.MISSING, "")
    shown = words.effect(first.effect)
    return Beside(shown.value, ". ".join(part for part in (shown.small, first.effect.text) if part))


def effects(answer: Answer) -> Table:
    heads = [Column("effect", kind="text"), Column("value", "with its 95 % interval", number=True)]
    heads += [Column("seeds", number=True, kind="each"), Column("documents", number=True)]
    rows = []
    for one in answer.effects:
        each = [words.number(one.unit, value) for value in one.per_seed] if 1 < len(one.per_seed) <= _PER_SEED else []
        counted = Beside(len(one.per_seed) or labels.MISSING, ", ".join(each))
        rows.append((one.text, words.effect(one), counted, one.documents or labels.MISSING))
    return Table.of(heads, list(dict.fromkeys(rows)))  # questions may share an effect


def points(answer: Answer) -> Table:
    """The points: the settings that vary between them, and their metrics."""
    if answer.sweep is None:
        return Table([])
    trials = answer.sweep.trials
    states = zip(trials["number"], trials["state"], strict=True)
    names = [f"#{number}" + ("" if state == "complete" else f" {state}") for number, state in states]
    found = [Column("point", "its number in the sweep", number=True, kind="number", cells=names)]
    for path in settings(answer)[0]:
        found.append(Column(path_name(path), path, cells=list(map(labels.setting, trials[path]))))
    for name in metrics(answer):
        cells = [numbers.both(row, name) for row in trials.to_dict("records")]
        found.append(Column(labels.column(name), f"{name}, with its 95 % interval", number=True, cells=cells))
    return Table(found)


def metrics(answer: Answer) -> list[str]:
    return [name for name in answer.table if answer.sweep is not None and name in answer.sweep.metrics]


def columns(metric: str) -> dict[str, str]:
    """The metric's columns of a frame of trials by their names in JSON."""
    return col.interval(metric) | {"sd": col.sd(metric)}


def settings(answer: Answer) -> tuple[list[str], dict[str, Any]]:
    """The paths that vary between the points, and the constant ones with their value."""
    if answer.sweep is None or answer.sweep.trials.empty:
        return [], {}
    trials = answer.sweep.trials
    varied = [path for path in answer.sweep.space if trials[path].map(labels.setting).nunique() > 1]
    return varied, {path: trials[path].iloc[0] for path in answer.sweep.space if path not in varied}


def constant_settings(answer: Answer) -> str:
    """ "In all: rank 8, learning rate 2e-4."; empty if all settings vary."""
    known = {path: labels.setting(value) for path, value in settings(answer)[1].items()}
    parts = [f"{path_name(path)} {value}" for path, value in known.items() if value != labels.MISSING]
    return f"In all: {', '.join(parts)}." if parts else ""


def beside_paper(answers: Sequence[Answer]) -> Table | None:
    """By role, the paper's rows and then ours; None without an answer named "paper"."""
    ours = [row for answer in answers for row in own_results(answer)]
    if not ours:
        return None
    roles = [split_metric(name)[0] for one in PAPER for name in one if "." in name] + [row["role"] for row in ours]
    rows = []
    for role in dict.fromkeys(roles):
        rows += [_paper_row(one, role) for one in PAPER if any(name.startswith(f"{role}.") for name in one)]
        rows += [_own_row(row) for row in ours if row["role"] == role]
    heads = [Column("skill"), Column("model"), Column("base (%)", number=True), Column("tuned (%)", number=True)]
    heads += [Column("gain (points)", "tuned minus base", number=True)]
    return Table.of([*heads, Column("forgetting (%)", "of the base's score", number=True)], rows)


def _paper_row(one: dict[str, Any], role: str) -> list[Any]:
    before, after, drop, forgetting = (one.get(f"{role}.{kind}") for kind in ("base", "value", "drop", "forgetting"))
    gain = after - before if after is not None and before is not None else -drop if drop is not None else None
    shares = {"base": before, "value": after, "gain": gain}
    # the paper gives a bound ("more than 88 %") and no value
    lost = labels.percent(f"{role}.forgetting", forgetting, digits=0).lstrip("+")
    texts = [labels.percent(f"{role}.{kind}", value, digits=2) for kind, value in shares.items()]
    model = Beside(one["model"], f"the paper, {one['samples']:,} rows")
    return [role, model, *texts, lost if forgetting is None else f"above {lost}"]


def own_results(answer: Answer) -> list[dict[str, Any]]:
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
            names = [column for kind in _SCORES for column in columns(f"{role}.{kind}").values()]
            found.append({"role": role, **point, **{name: row[name] for name in names}})
    return found


def _own_row(row: dict[str, Any]) -> list[Any]:
    base, value, *differences = (f"{row['role']}.{kind}" for kind in _SCORES)
    small = f"ours, {row['samples']:,} rows, {words.seeds(int(row['replicates']))}"
    cells = [numbers.value(row, base), numbers.value(row, value), *(numbers.both(row, name) for name in differences)]
    return [row["role"], Beside(row["model"].rsplit("/", 1)[-1], small), *cells]
