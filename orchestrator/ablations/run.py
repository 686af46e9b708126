"""Lists the ablations with what they cost, runs them one sweep after the other, and writes their answers."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from analysis.ablations import page
from analysis.ablations.answer import Answer
from analysis.results.load import load
from analysis.results.sweep import Sweep
from orchestrator.ablations.design import Ablations, Planned, label
from orchestrator.ablations.model import Scale
from orchestrator.console.terminal import Terminal
from orchestrator.planning.plan import Gpus, plan
from trials.errors import InputError
from trials.ledger.storage import exists, root

GPUS = ("T4", "A100", "H200")
ALL = "all"


def rows(ablations: Ablations, storage: str, base: str | None, scale: Scale) -> Iterator[dict[str, Any]]:
    """A row for each ablation: name, question, bases, trials (evaluations for an ablation that trains nothing), points derived
    from them, and hours on each of GPUS (None for a base of unknown size)."""
    for planned in each(ablations, ALL, base, scale):
        counts = [_trials(one) for one in planned]
        yield {
            "name": planned[0].ablation.name,
            "question": planned[0].ablation.question,
            "bases": [one.base for one in planned],
            "trials": sum(trained for trained, _ in counts),
            "derived": sum(derived for _, derived in counts),
            "gpu_hours": {gpu: _hours(ablations, planned, storage, gpu) for gpu in GPUS},
        }


def each(ablations: Ablations, name: str, base: str | None, scale: Scale) -> Iterator[list[Planned]]:
    """The sweeps of each ablation; `all` takes those that the base suffices for."""
    if name != ALL:
        yield ablations.plan(name, base, scale)
        return
    for one in ablations.names:
        if ablations.can(one, base):
            yield ablations.plan(one, base, scale)


def _trials(planned: Planned) -> tuple[int, int]:
    points = list(planned.config.grid())
    derived = sum(len(planned.config.siblings(point)) for point in points)
    return len(points) * planned.config.search.replicates, derived * planned.config.search.replicates


def shared(ablations: Ablations, base: str | None, scale: Scale) -> tuple[int, int]:
    """(trials of all ablations, distinct trials). A trial that several ablations share runs once."""
    keys = []
    for planned in each(ablations, ALL, base, scale):
        for one in planned:
            keys += [spec.key for point in one.config.grid() for spec in one.config.specs(point)]
    return len(keys), len(set(keys))


def _hours(ablations: Ablations, planned: Sequence[Planned], storage: str, gpu: str) -> float | None:
    shapes = ablations.frame.shapes
    hours = [plan(one.config, root(storage), Gpus(gpu), shapes).gpu_hours for one in planned]
    known = [one for one in hours if one is not None]
    return sum(known) if len(known) == len(hours) else None


def run(planned: Sequence[Planned], storage: str, address: str | None, console: Terminal, events: str | None) -> list[str]:
    """Drives each sweep. Returns the names of those without a finished trial. Raises SweepFailed for a stopped one."""
    # Ray is imported here alone: to list the ablations must not take seconds
    from orchestrator.api import Driving, drive

    lost = []
    for config in (one.config for one in planned):
        ran = drive(config, storage, Driving(address, console, show=False, events=events))
        if ran.left:
            ran.check()
        if not ran.outcome["complete"]:
            lost.append(config.name)
    return lost


def answers(planned: Sequence[Planned], storage: str) -> list[Answer]:
    """The answers of ablations that have begun. A sweep of the same name on another base answers none of their questions."""
    found = []
    for one in planned:
        folder = root(storage) / one.config.name
        try:
            sweep = load(folder)
        except InputError:
            if exists(folder / "manifest.json"):  # begun, but damaged
                raise
            continue
        if _model(sweep) in (None, one.config.base.model):
            found.append(one.answer(sweep))
    return found


def _model(sweep: Sweep) -> str | None:
    """The sweep's base; None where its sweep.yaml is missing or damaged (the next run writes it anew)."""
    try:
        return str(yaml.safe_load(sweep.config)["base"]["model"])
    except (yaml.YAMLError, ValueError, TypeError, KeyError, RecursionError):
        return None


def write(
    ablations: Ablations, planned: Sequence[Planned], storage: str, base: str | None, scale: Scale
) -> tuple[list[Answer], list[Path]]:
    """Writes the page of all ablations of this base and scale in the storage.

    Returns the answers of the `planned` ones, and the files.
    """
    # one page for all ablations of this base, whichever ran now: a reader looks in one place
    everything = [one for several in each(ablations, ALL, base, scale) for one in several]
    known = {one.config.name for one in everything}
    found = answers([*everything, *(one for one in planned if one.config.name not in known)], storage)
    name = "-".join(part for part in ("ablations", label(base or ""), "small" if scale == "small" else "") if part)
    title = "The paper's ablations" + (f" on {base}" if base else "") + (", in small scale" if scale == "small" else "")
    wanted = {one.ablation.name for one in planned}
    return [one for one in found if one.name in wanted], page.write(found, root(storage) / name, title)


def say(found: Sequence[Answer], print_line: Callable[[str], None]) -> None:
    """Each question after its answer."""
    for one in found:
        print_line(f"\n{one.name} on {one.base}: {one.title}")
        for verdict in one.verdicts:
            print_line(f"  {verdict.answer.upper()}: {verdict.question}")
            print_line(f"    {verdict.words}")


def as_dict(found: Sequence[Answer]) -> list[dict[str, Any]]:
    return [
        {
            "name": one.name,
            "base": one.base,
            "question": one.question,
            "answers": [{"question": each.question, "answer": each.answer, "words": each.words} for each in one.verdicts],
        }
        for one in found
    ]
