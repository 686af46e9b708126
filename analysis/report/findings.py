"""The report's words: what came of the sweep, how far that can be believed, and what a reader has to know first."""

import json
from collections.abc import Sequence

import numpy as np
import pandas as pd

from analysis.explore.failure_signatures import SIGNATURES, verdicts
from analysis.formatting import labels
from analysis.formatting import numbers as told
from analysis.metrics.names import Constraint, split_metric
from analysis.results import schema as col
from analysis.results.sweep import Sweep
from trials.ledger.record import TrialRecord

STEADY = 10  # a forgetting rate is read only where its base is above this many standard errors


def headline(sweep: Sweep) -> str:
    """The result in one or two sentences: how many trials keep the constraints, and the best first objective among them."""
    complete = len(sweep.complete)
    feasible = int(sweep.trials["feasible"].sum())
    if not len(sweep.trials):
        return "No trial has been asked for yet."
    if not complete:
        failed = sweep.states["failed"]
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
    level = labels.percent(objective.metric, best[objective.metric], best[col.se(objective.metric)])
    return f"{text}; best {name}{among} {level}{labels.unit(objective.metric)} (trial #{best['number']})."


def claims(sweep: Sweep) -> list[str]:
    """What the numbers support and what they do not, a sentence or two each; none where no trial has finished."""
    if not len(sweep.complete):
        return []
    found = _best(sweep) if len(sweep.front) else _nearest(sweep)
    return [*found, *_front(sweep), *_signatures(sweep)]


def _best(sweep: Sweep) -> list[str]:
    objective, best = sweep.objectives[0].metric, sweep.front.iloc[0].to_dict()
    name, found = labels.metric_name(objective), []
    text = f"Trial #{best['number']} has {name} {told.sentence(best, objective)}"
    if np.isfinite(best[col.corrected(objective)]) and len(sweep.trials) > 1:
        text += f"; corrected for having picked the best of many, {told.corrected_sentence(best, objective)}"
    found.append(f"{text}.")
    ends = [[best[end] for end in col.ends(name)] for name in (objective, col.corrected(objective))]
    if split_metric(objective)[1] in ("gain", "drop") and any(low <= 0 <= high for low, high in ends):
        found.append(f"An interval of these spans 0: the sweep does not establish that the {name} is other than none.")
    if sweep.constraints and np.isfinite(best["p_feasible"]):
        every = "the constraint" if len(sweep.constraints) == 1 else "every constraint"
        found.append(f"It keeps {every} with a probability of {told.probability(best['p_feasible'])}.")
    return found


def _nearest(sweep: Sweep) -> list[str]:
    """Where nothing is feasible: the trial that is least beyond a constraint."""
    done = sweep.complete
    if not sweep.constraints:
        return []
    beyond = [
        max(_violation(one, row[col.searched(one.metric)]) for one in sweep.constraints) for row in done.to_dict("records")
    ]
    if not np.isfinite(beyond).any():
        return ["No trial has a value for every constraint."]
    row = done.iloc[int(np.argmin(beyond))].to_dict()
    levels = " and ".join(
        f"{labels.metric_name(name)} {told.sentence(row, name)}"
        for name in dict.fromkeys(one.metric for one in sweep.constraints)
    )
    return [f"Nearest comes trial #{row['number']}, with {levels}; it keeps the constraints with a probability of "
            f"{told.probability(row['p_feasible'])}."]  # fmt: skip


def _violation(constraint: Constraint, value: float) -> float:
    return constraint.violation(value)


def _front(sweep: Sweep) -> list[str]:
    chances = sweep.front["p_front"].dropna()
    if len(chances) < 2:
        return []
    likely = int((chances >= 0.5).sum())
    many = f"{likely or 'none'} of these {'has' if likely <= 1 else 'have'}"
    return [f"{len(sweep.front)} trials make the front; {many} an even chance or better to be on the true one."]


def _signatures(sweep: Sweep) -> list[str]:
    told_of, found = verdicts(sweep), []
    for one in SIGNATURES:
        shown, open_ = ((told_of[one.name] == verdict) for verdict in ("yes", "cannot tell"))
        counts = [int(shown.sum()), int(open_.sum())]
        if not any(counts):
            continue
        which = _which(sweep.trials.loc[shown, "number"].tolist())
        text = (
            f"{counts[0]} trial{'s' if counts[0] > 1 else ''}{which} show{'s' if counts[0] == 1 else ''} {one.name}"
            if counts[0]
            else ""
        )
        if counts[1]:
            others = f"{counts[1]} {'more' if text else 'trials' if counts[1] > 1 else 'trial'} may"
            text = f"{text}; {others}" if text else f"{others} show {one.name}, which their documents do not settle"
        found.append(f"{text} ({one.words}).")
    return found


def _which(numbers: Sequence[int]) -> str:
    return f" ({', '.join(f'#{one}' for one in numbers)})" if 0 < len(numbers) <= 6 else ""


def notices(sweep: Sweep) -> list[str]:
    """What a reader has to know before believing the numbers, a sentence each."""
    found = []
    if sweep.half is not None:
        found.append(quoted(sweep))
    missing = sweep.baselines[(sweep.baselines["state"] != "complete") & (sweep.baselines["trials"] > 0)]
    for row in missing.to_dict("records"):
        found.append(f"Baseline {row['key']} is {row['state']}: {row['trials']} trials have nothing to be measured against.")
    found += _unsteady(sweep)
    machines = _hardware(sweep.complete_records)
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
        for row in sweep.complete_baselines.to_dict("records"):
            value, error = row.get(f"{role}.value"), row.get(col.se(f"{role}.value"))
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


def _hardware(records: Sequence[TrialRecord]) -> set[str]:
    return {json.dumps(record.hardware, sort_keys=True) for record in records}
