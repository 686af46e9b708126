"""The report's sentences: the result, the evidence for it, and what a reader must know first."""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from analysis.explore.failure_signatures import SIGNATURES, verdicts
from analysis.formatting import labels, numbers
from analysis.metrics.definitions import CHANCE_KINDS, JOINT_KINDS, RATES
from analysis.metrics.names import LEARNING, roles_of, split_metric
from analysis.results import schema as col
from analysis.results.frame import oriented
from analysis.results.sweep import Sweep
from analysis.stats import pareto

STEADY = 10  # a forgetting rate means little if its base is below this many standard errors


def headline(sweep: Sweep) -> str:
    """The result in one to three sentences: how many trials keep the constraints, the best first objective among them and that
    trial's drift, and how many trials were given up."""
    given_up = sweep.states["given up"]
    rest = f" {_count(given_up)} {'was' if given_up == 1 else 'were'} given up." if given_up else ""
    return _finished(sweep) + (rest if len(sweep.trials) > 1 else "")


def _finished(sweep: Sweep) -> str:
    complete = len(sweep.complete)
    feasible = int(sweep.trials["feasible"].sum())
    if undefined := _undefined(sweep):
        return undefined
    if not len(sweep.trials):
        return "The sweep has no trial yet."
    if not complete:
        all_failed = sweep.states["failed"] == len(sweep.trials)
        if len(sweep.trials) == 1:
            ended = "failed" if all_failed else "was given up" if sweep.states["given up"] else "has not finished yet"
            return f"The only trial {ended}."
        return (
            f"All {len(sweep.trials)} trials failed." if all_failed else f"None of {len(sweep.trials)} trials has finished yet."
        )
    words = " and ".join(labels.constraint_words(constraint) for constraint in sweep.constraints)
    finished = _count(complete, "finished trial")
    text = _kept(feasible, complete, words) if words else finished
    if not len(sweep.front):
        if not feasible:
            return f"{text}."
        _, beaten, _ = _beside_the_base(sweep)
        them = "it" if feasible == 1 else "each of them"
        if len(beaten) and beaten.all():
            return f"{text}; the untrained base beats {them}."
        return f"{text}; {'it has no' if feasible == 1 else 'none of them has a'} value for every objective."
    objective, best = sweep.objectives[0], sweep.front.iloc[0]
    among = " among them" if words and complete > 1 else ""
    name, unit = labels.metric_name(objective.metric), labels.unit(objective.metric)
    if np.isfinite(corrected := best[col.corrected(objective.metric)]):
        level = f"{labels.percent(objective.metric, corrected)}{unit}, corrected for selection"
    elif not np.isfinite(best[objective.metric]):
        return f"{text}; best {name}{among} by trial #{best['number']}, without a value on the report half."
    else:
        level = numbers.estimate(best.to_dict(), objective.metric) + unit
    return f"{text}; best {name}{among} {level} (trial #{best['number']}{_drift(sweep, best.to_dict())})."


def _drift(sweep: Sweep, row: Mapping[Any, Any]) -> str:
    """A trial's distance from its base on held-out rows. No verdict: how far is too far, no number of these says."""
    metric = f"{LEARNING}.kl"
    if metric in sweep.judged or metric not in sweep.metrics or not np.isfinite(row[metric]):
        return ""  # a metric that decides is in the table
    name = labels.metric_name(metric).removeprefix(f"{LEARNING} ")
    return f", {name} {numbers.value(row, metric)}{labels.unit(metric)} a token"


def _undefined(sweep: Sweep) -> str | None:
    """For a sweep that none of its trials could win: a rate that decides is undefined on the documents of every base."""
    bases = sweep.complete_baselines
    rates = [name for name in sweep.judged if split_metric(name)[1] in RATES]
    rates = [name for name in rates if len(bases) and bases[col.searched(name)].isna().all()]
    missing = [name for name in sweep.judged if split_metric(name)[1] in CHANCE_KINDS]
    missing = [name for name in missing if len(bases) and bases[col.searched(name)].isna().all()]
    if missing:
        return (
            f"No trial can be judged: {' and '.join(map(labels.metric_name, missing))} is undefined, since the base's record "
            "does not hold the numbers of choices; search lost and won instead."
        )
    known = {role for role in roles_of(rates) if f"{role}.value" in bases and bases[f"{role}.value"].notna().any()}
    rates = [name for name in rates if known.issuperset(roles_of([name]))]
    if not rates:
        return None
    roles = [role for role in roles_of(rates) if (bases[f"{role}.value"] == 0).any()] or roles_of(rates)
    instead = " or ".join(f"{role}.{kind}" for role in roles for kind in ("drop", "gold_bpb_delta"))
    seen = " on the half of the documents that the search saw" if sweep.half is not None else ""
    verb = "is" if len(rates) == 1 else "are"
    return (
        f"No trial can be judged: {' and '.join(map(labels.metric_name, rates))} {verb} undefined, since the base scores 0 in "
        f"{' and '.join(roles)}{seen}; search {instead} instead."
    )


def _kept(feasible: int, complete: int, words: str) -> str:
    if complete == 1:
        return f"The only finished trial {'keeps' if feasible else 'does not keep'} {words}"
    return f"{feasible or 'None'} of {complete} finished trials {'keeps' if feasible <= 1 else 'keep'} {words}"


def claims(sweep: Sweep) -> list[str]:
    """Claims that the numbers support, and limits of the evidence; none before a trial has finished."""
    if not len(sweep.complete):
        return []
    found = _best(sweep) if len(sweep.front) else [] if sweep.trials["feasible"].any() else _nearest(sweep)
    return [*found, *_front(sweep), *_base(sweep), *_signatures(sweep)]


def _best(sweep: Sweep) -> list[str]:
    objective, best = sweep.objectives[0].metric, sweep.front.iloc[0].to_dict()
    name, found = labels.metric_name(objective), []
    if not np.isfinite(best[objective]):  # a rate whose base scores 0 on the report half alone
        return [f"Trial #{best['number']} is best by the search half; the base has no {name} on the report half to quote."]
    text = f"Trial #{best['number']} has {name} {numbers.sentence(best, objective)}"
    if np.isfinite(best[col.corrected(objective)]):
        text += (
            f"; corrected for selection among many trials, {numbers.sentence(numbers.corrected(best, objective), objective)}"
        )
    found.append(f"{text}.")
    ends = [[best[end] for end in col.ends(column)] for column in (objective, col.corrected(objective))]
    if split_metric(objective)[1] in ("gain", "drop") and any(low <= 0 <= high for low, high in ends):
        found.append(f"An interval of these spans 0: the sweep does not show that the {name} differs from 0.")
    if sweep.constraints and np.isfinite(best["p_feasible"]):
        every = "the constraint" if len(sweep.constraints) == 1 else "every constraint"
        found.append(f"It keeps {every} with a probability of {numbers.probability(best['p_feasible'])}.")
    return found


def _nearest(sweep: Sweep) -> list[str]:
    """For a sweep without a feasible trial: the trial with the smallest violation of a constraint."""
    done = sweep.complete
    if not sweep.constraints:
        return []
    beyond = [max(one.violation(row[col.searched(one.metric)]) for one in sweep.constraints) for row in done.to_dict("records")]
    if not np.isfinite(beyond).any():
        return ["No trial has a value for every constraint."]
    row = done.iloc[int(np.argmin(beyond))].to_dict()
    levels = " and ".join(
        f"{labels.metric_name(name)} {numbers.sentence(row, name)}"
        for name in dict.fromkeys(one.metric for one in sweep.constraints)
    )
    return [f"Nearest comes trial #{row['number']}, with {levels}; it keeps the constraints with a probability of "
            f"{numbers.probability(row['p_feasible'])}."]  # fmt: skip


def _front(sweep: Sweep) -> list[str]:
    chances = sweep.front["p_front"].dropna()
    if len(chances) < 2:
        return []
    likely = int((chances >= 0.5).sum())
    many = f"{likely or 'none'} of them {'has' if likely <= 1 else 'have'}"
    return [f"{len(sweep.front)} trials are on the front; {many} a probability of at least 50 % to be on the true front."]


def _base(sweep: Sweep) -> list[str]:
    """What training won over doing nothing."""
    rows, beaten, better = _beside_the_base(sweep)
    if not len(rows):
        return []
    found = []
    if beaten.all():
        found.append(f"Nothing beats doing nothing: the untrained base is better than {_each(len(rows))}.")
    elif beaten.any():
        found.append(
            f"The untrained base counts as a point. It is better than {int(beaten.sum())} of the {_count(len(rows))} that "
            "could be on the front."
        )
    if not better.any() and not beaten.all() and len(sweep.objectives) > 1:
        found.append("No trial is better than the untrained base in every objective: each gain has its price.")
    return found


def _beside_the_base(sweep: Sweep) -> tuple[pd.DataFrame, np.ndarray, np.ndarray]:
    """The feasible trials with a value for every objective, and masks of those that a base dominates and that dominate one.
    Empty where no base has the values."""
    parts = []
    for frame in (sweep.trials, sweep.baselines):
        rows = frame[frame["feasible"]]
        parts.append(rows[np.isfinite(oriented(rows, sweep.criteria)).all(axis=1)])
    rows, bases = parts if len(parts[1]) else (parts[0][:0], parts[1])
    points, untrained = oriented(rows, sweep.criteria)[:, None], oriented(bases, sweep.criteria)[None]
    beaten, better = pareto.dominates(untrained, points), pareto.dominates(points, untrained)
    return rows, np.logical_or.reduce(beaten, axis=1), np.logical_or.reduce(better, axis=1)


def _each(trials: int) -> str:
    return (
        "the only trial that could be on the front"
        if trials == 1
        else f"each of the {trials} trials that could be on the front"
    )


def _signatures(sweep: Sweep) -> list[str]:
    judged, found = verdicts(sweep), []
    for one in SIGNATURES:
        shown = sweep.trials.loc[judged[one.name] == "yes", "number"].tolist()
        may = int((judged[one.name] == "cannot tell").sum())
        which = f" ({', '.join(f'#{number}' for number in shown)})" if len(shown) <= 6 else ""
        parts = [f"{_count(len(shown))}{which} show{'s' if len(shown) == 1 else ''} {one.name}"] if shown else []
        if may:
            parts.append(f"{may} more may" if shown else f"{_count(may)} may show {one.name}: their documents do not settle it")
        found += [f"{'; '.join(parts)} ({one.words})."] if parts else []
    return found


def _count(number: int, what: str = "trial") -> str:
    return f"{number} {what}{'s' if number > 1 else ''}"


def notices(sweep: Sweep) -> list[str]:
    """Warnings for the reader of the numbers, a sentence each."""
    found = []
    if sweep.half is not None:
        found.append(quoted(sweep))
    missing = sweep.baselines[(sweep.baselines["state"] != "complete") & (sweep.baselines["trials"] > 0)]
    for row in missing.to_dict("records"):
        found.append(f"Baseline {row['key']} is {row['state']}: {row['trials']} trials cannot be measured against it.")
    found += _unsteady(sweep)
    complete = sweep.complete_records
    machines = {json.dumps(record.hardware, sort_keys=True) for record in complete}
    if len(machines) > 1:
        found.append(
            f"The records come from {len(machines)} kinds of hardware or numbers of threads, which may explain differences."
        )
    return found


def quoted(sweep: Sweep) -> str:
    """The documents behind the metrics, if the search used one half of them."""
    columns = [name for name in sweep.baselines.columns if name.endswith(".n")] if len(sweep.baselines) else []
    counts = [f"{name.removesuffix('.n')} {int(sweep.baselines[name].max())}" for name in columns]
    sizes = f" ({', '.join(counts)} documents)" if counts else ""
    decided = "feasible and on the front" if sweep.constraints else "on the front"
    text = (
        f"Metrics are from the {sweep.half} half of the documents{sizes}. The search used the other half, which decided which "
        f"trials are {decided}."
    )
    return f"{text} A constraint may therefore look slightly violated." if sweep.constraints else text


def _unsteady(sweep: Sweep) -> list[str]:
    """A sentence for each role whose base score is too low for the forgetting rate that is searched or constrained."""
    roles = roles_of(name for name in sweep.judged if split_metric(name)[1] in ("forgetting", *JOINT_KINDS))
    found = []
    for role in roles:
        for row in sweep.complete_baselines.to_dict("records"):
            value, error = row.get(f"{role}.value"), row.get(col.se(f"{role}.value"))
            if value is None or error is None or pd.isna(value):
                continue
            base, unit = labels.percent(f"{role}.base", value, error), labels.unit(f"{role}.base")
            if value == 0:
                found.append(f"The {role} base is 0{unit}, so its forgetting rate is undefined; read the drop.")
            elif value < STEADY * error:
                found.append(
                    f"The {role} base is {base}{unit}, less than {STEADY} standard errors: "
                    "read the drop, not the forgetting rate."
                )
    return found
