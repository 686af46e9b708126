"""Imports what lm-eval's command line measured of a base and its tunes, as a sweep that the other commands read.

Everything is read and paired before anything is written. The same import again changes nothing; a later one adds its tunes.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from analysis.metrics.names import Objective, parse_constraint, split_metric
from analysis.results.manifest import Manifest, ManifestTrial
from orchestrator.config import shorthand
from trials.errors import InputError
from trials.imported import folder, pairing, records, roles
from trials.imported.folder import Model
from trials.imported.pairing import Measured
from trials.ledger.record import NAME, Ledger, TrialRecord
from trials.ledger.storage import check_store, exists, is_link, refuse_link
from trials.printable import one_line

MOST_OBJECTIVES = 4  # with more, almost every model is on the front
_PATH = "model"  # the one setting of an imported trial


@dataclass(frozen=True)
class Request:
    name: str
    base: str | None = None
    """The base by its name, its folder, or a unique end of either. Default: see `choose_base`."""
    roles: Sequence[str] = ()
    objectives: Sequence[str] = ()
    """As "maximize math.gain". Default: the gain of every role."""
    constraints: Sequence[str] = ()
    documents: Literal["half", "all"] | None = None
    """As search.documents of a config. Default: the earlier import's, else half."""


def sweep_name(source: Path) -> str:
    """The default name of a sweep: that of the folder, without what a name may not have."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", source.resolve().name).strip("-._")[:200]
    return f"{plain}-imported" if plain.lower() == "ledger" else plain or "imported"


def import_results(source: Path, storage: Path, request: Request, say: Callable[[str], None]) -> Path:
    """Writes the records and the manifest; returns the sweep's folder. Raises InputError before anything is written."""
    if not re.fullmatch(NAME, request.name) or request.name.lower() == "ledger":
        raise InputError(
            f"--name: up to 200 letters a to z, digits, dots, dashes and underscores, not {one_line(request.name)!r}"
        )
    check_store(storage)
    place, ledger = refuse_link(storage / request.name), Ledger(storage)
    refuse_link(ledger.root)
    earlier = _earlier(place)
    found = folder.models(source)
    known = _model(ledger, earlier.baselines[0]) if earlier is not None else None
    base_model = _base_of(found, source, request.base, known)
    base = _known_base(ledger, earlier, request) if base_model is None else _new_base(base_model, request)
    if earlier is not None and base.record.key not in earlier.baselines:
        raise InputError(
            f"{place}: was imported with another base, other roles or other results of the base ({earlier.baselines[0]}, now "
            f"{base.record.key}); give the same ones, or another --name"
        )
    tunes = [records.measured(model, base.record.spec, False) for model in found if model is not base_model]
    if not tunes:
        raise InputError(f"{source}: holds {base.record.spec.base.model} alone; a base and a tune of it are needed")
    for one in tunes:
        pairing.check(base, one)
    for line in (line for one in tunes for line in pairing.differences(base.record, one.record)):
        say(f"note: {line}")
    manifest = _manifest(request, base.record, earlier, _entries(ledger, earlier, base.record, tunes, say))
    for one in (base, *tunes):
        if ledger.complete(one.record.key) is None:
            ledger.write(one.record, one.documents)
    manifest.write(place)
    return place


# ---------------------------------------------------------------------- the base


def _base_of(found: Sequence[Model], source: Path, wanted: str | None, known: str | None) -> Model | None:
    """The base among the models. `known` is that of an earlier import; None where this folder has its tunes alone."""
    if wanted is not None:
        return _named(found, source, wanted)
    if known is not None:
        return next((model for model in found if model.name == known), None)
    if len(found) == 1:
        raise InputError(f"{source}: holds {found[0].name} alone; a base and a tune of it are needed")
    chosen = default_base(found)
    if chosen is None:
        raise InputError(f"{source}: which model is the base? --base names it: {', '.join(_shown(found))}")
    return chosen


def default_base(found: Sequence[Model]) -> Model | None:
    """The model without an adapter that every other model names as the weights below its own adapter (`pretrained=` beside
    `peft=`). None where there is no such model."""
    plain = [model for model in found if not {"peft", "delta"} & model.newest.arguments.keys()]
    below = {model.newest.arguments.get("pretrained") for model in found if model not in plain}
    if len(plain) == 1 and below <= {plain[0].newest.arguments.get("pretrained")}:
        return plain[0]
    return None


def _named(found: Sequence[Model], source: Path, wanted: str) -> Model:
    def names(model: Model) -> set[str]:
        folders = {place.relative_to(source).as_posix() for place in model.folders}
        parents = {parent.as_posix() for place in folders for parent in Path(place).parents} - {"."}
        return {model.name, *folders, *parents}

    wanted = wanted.rstrip("/")
    exact = [model for model in found if wanted in names(model)]
    ends = [model for model in found if any(name.endswith(f"/{wanted}") for name in names(model))]
    matches = exact or ends
    if len(matches) != 1:
        why = "fits several models" if matches else "is none of its models"
        raise InputError(f"{source}: --base {one_line(wanted)} {why}; they are {', '.join(_shown(matches or found))}")
    return matches[0]


def _shown(found: Iterable[Model]) -> list[str]:
    return [model.name for model in found]


def _new_base(model: Model, request: Request) -> Measured:
    return records.measured(model, records.spec(model, roles.evaluations(model, request.roles)), True)


def _known_base(ledger: Ledger, earlier: Manifest | None, request: Request) -> Measured:
    """The base of the earlier import, from the ledger."""
    assert earlier is not None
    if request.roles:
        raise InputError(f"{earlier.name}: its roles are those of the earlier import; leave out --role, or give another --name")
    key = earlier.baselines[0]
    record = ledger.complete(key)
    if record is None:
        raise InputError(f"{ledger.folder(key)}: the record of the base is gone; import the base again")
    return Measured(record, ledger.documents(key))


# ---------------------------------------------------------------------- the manifest


def _earlier(place: Path) -> Manifest | None:
    if not exists(place / "manifest.json") and not is_link(place / "manifest.json"):
        if exists(place / "sweep.yaml"):
            raise InputError(f"{place}: holds a sweep of this program; give another --name")
        return None
    found = Manifest.read(place)
    if not found.imported:
        raise InputError(f"{place}: holds a sweep of this program; give another --name")
    return found


def _entries(
    ledger: Ledger, earlier: Manifest | None, base: TrialRecord, tunes: Sequence[Measured], say: Callable[[str], None]
) -> list[ManifestTrial]:
    """The trials with their labels. New results of a model replace its old ones under the same number."""
    keys = {trial.number: trial.key for trial in (earlier.trials if earlier is not None else ()) if trial.key}
    names = {number: _model(ledger, key) for number, key in keys.items()}
    for one in tunes:
        name, key = one.record.imported.model, one.record.key  # type: ignore[union-attr]
        number = next((number for number, known in names.items() if known == name), max(keys, default=-1) + 1)
        if keys.get(number, key) != key:
            say(f"note: trial #{number}: new results of {name} replace {keys[number]}")
        keys[number], names[number] = key, name
    short = folder.labels(list(dict.fromkeys(names.values())))
    return [
        ManifestTrial(number=number, key=key, baseline=base.key, params={_PATH: short[names[number]]})
        for number, key in sorted(keys.items())
    ]


def _model(ledger: Ledger, key: str) -> str:
    try:
        record = ledger.read(key)
    except InputError:  # damaged: `status` says so, and the model's next import replaces it
        record = None
    return key if record is None or record.imported is None else record.imported.model


def _manifest(request: Request, base: TrialRecord, earlier: Manifest | None, entries: list[ManifestTrial]) -> Manifest:
    objectives, constraints = _objectives(request, base, earlier), list(request.constraints)
    for constraint in constraints:
        parse_constraint(constraint, base.scores)
    return Manifest(
        schema_number=1,
        name=request.name,
        objectives=objectives,
        constraints=constraints or (earlier.constraints if earlier is not None else []),
        space=[_PATH],
        trials=entries,
        baselines=[base.key],
        budget=len(entries),
        documents=request.documents or (earlier.documents if earlier is not None else "half"),
    )


def _objectives(request: Request, base: TrialRecord, earlier: Manifest | None) -> list[Objective]:
    if request.objectives:
        made = [_objective(text) for text in request.objectives]
        for one in made:
            split_metric(one.metric, base.scores)
        return made
    if earlier is not None:
        return list(earlier.objectives)
    if len(base.scores) > MOST_OBJECTIVES:
        raise InputError(
            f"{len(base.scores)} roles ({', '.join(base.scores)}): name the objectives that matter, as "
            f'--objective "maximize {next(iter(base.scores))}.gain"'
        )
    return [Objective(metric=f"{role}.gain", direction="maximize") for role in base.scores]


def _objective(text: str) -> Objective:
    try:
        (found,) = shorthand.objectives([text])
        return Objective.model_validate(found)
    except ValueError:
        shape = '"maximize ROLE.KIND" or "minimize ROLE.KIND", as "maximize math.gain"'
        raise InputError(f"--objective: expected {shape}, but got {one_line(text)!r}") from None
