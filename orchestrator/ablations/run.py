"""Lists the ablations with what they cost, runs them one sweep after the other, and writes their answers."""

from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from analysis.ablations import page
from analysis.ablations.answer import Answer
from analysis.ablations.decide import answer
from analysis.results.load import load
from orchestrator.ablations.design import Ablations, Planned, Scale
from orchestrator.errors import SweepFailed
from orchestrator.planning.plan import plan
from trials.errors import InputError
from trials.ledger.storage import exists, root

GPUS = ("T4", "A100", "H200")
ALL = "all"


def rows(ablations: Ablations, storage: str, base: str | None, scale: Scale) -> Iterator[dict[str, Any]]:
    """Per ablation: name, question, bases, trials (trainings, or evaluations where nothing is trained), points derived from
    them, and hours on each of GPUS (None where a base's size is not known)."""
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
    """The sweeps of each ablation; of all of them, those that can be had on this base."""
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
    """Trials of all ablations, and how many of them are distinct: what several ask for is run once."""
    keys = []
    for planned in each(ablations, ALL, base, scale):
        for one in planned:
            keys += [spec.key for point in one.config.grid() for spec in one.config.specs(point)]
    return len(keys), len(set(keys))


def _hours(ablations: Ablations, planned: Sequence[Planned], storage: str, gpu: str) -> float | None:
    shapes = ablations.frame.shapes
    hours = [plan(one.config, root(storage), gpu, shapes=shapes).gpu_hours for one in planned]
    known = [one for one in hours if one is not None]
    return sum(known) if len(known) == len(hours) else None


def table(found: Sequence[dict[str, Any]]) -> Table:
    made = Table(box=box.SIMPLE, padding=(0, 1, 0, 0), pad_edge=False)
    made.add_column("name", no_wrap=True)
    made.add_column("question", overflow="fold")
    for column in ("trials", "derived", *(f"h on {gpu}" for gpu in GPUS)):
        made.add_column(column, justify="right", no_wrap=True)
    for row in found:
        hours = ["?" if one is None else "< 0.1" if one < 0.1 else f"{one:.1f}" for one in row["gpu_hours"].values()]
        made.add_row(row["name"], row["question"], str(row["trials"]), str(row["derived"] or "-"), *hours)
    return made


def run(
    planned: Sequence[Planned], storage: str, address: str | None, console: Console, events: str | None, mirror: str | None
) -> list[str]:
    """Drives each sweep; returns the names of those that have no finished trial. Raises SweepFailed where one was stopped."""
    from orchestrator.finish import finish
    from orchestrator.run import drive

    lost = []
    for one in planned:
        config = one.config if mirror is None else one.config.model_copy(update={"hub_mirror": mirror})
        left = drive(config, storage, address, console, events)
        if left:
            raise SweepFailed(f"{config.name}: stopped with {left} still to run; the same command goes on with them")
        if not finish(storage, config.name, None)["complete"]:
            lost.append(config.name)
    return lost


def answers(planned: Sequence[Planned], storage: str) -> list[Answer]:
    """Of those whose sweeps are there."""
    found = []
    for one in planned:
        folder = root(storage) / one.config.name
        try:
            sweep = load(folder)
        except InputError:
            if exists(folder / "manifest.json"):  # there, and not whole
                raise
            continue
        ablation = one.ablation
        found.append(
            answer(
                sweep,
                one.questions,
                planned=one.points(),
                name=ablation.name,
                title=ablation.title,
                question=ablation.question,
                why=ablation.why,
                design=ablation.design,
                base=one.base,
                figures=one.figures,
                table=ablation.table,
                caveats=(*one.notes, *ablation.caveats),
            )
        )
    return found


def write(
    ablations: Ablations, planned: Sequence[Planned], storage: str, base: str | None, scale: Scale
) -> tuple[list[Answer], list[Path]]:
    """The answers to all ablations of this base and scale that have been run in this storage, those of `planned` among them."""
    everything = [one for several in each(ablations, ALL, base, scale) for one in several]
    known = {one.config.name for one in everything}
    found = answers([*everything, *(one for one in planned if one.config.name not in known)], storage)
    label = "-".join(
        ["ablations", *([base.rpartition("/")[2].lower()] if base else []), *(["small"] if scale == "small" else [])]
    )
    title = "The paper's ablations" + (f" on {base}" if base else "") + (", in small scale" if scale == "small" else "")
    return found, page.write(found, root(storage) / label, title)


def say(found: Sequence[Answer], wanted: Collection[str], print_line: Callable[[str], None]) -> None:
    """Each question with its answer."""
    for one in found:
        if one.name not in wanted:
            continue
        print_line(f"\n{one.name} on {one.base}: {one.title}")
        for verdict in one.verdicts:
            print_line(f"  {verdict.question}")
            print_line(f"    {verdict.answer.upper()}. {verdict.words}")


def as_dict(found: Sequence[Answer], wanted: Collection[str]) -> list[dict[str, Any]]:
    return [
        {
            "name": one.name,
            "base": one.base,
            "question": one.question,
            "answers": [{"question": each.question, "answer": each.answer, "words": each.words} for each in one.verdicts],
        }
        for one in found
        if one.name in wanted
    ]
