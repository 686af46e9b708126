"""Imports what lm-eval's command line measured of a base and its tunes, as a sweep that the other commands read.

Everything is read and paired before anything is written. The same import again changes nothing; a later one adds its tunes.
"""

import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pyarrow import ArrowInvalid

from analysis.metrics.names import Objective, parse_constraint, split_metric
from analysis.results.manifest import Manifest, ManifestTrial
from orchestrator.config import shorthand
from trials.errors import InputError
from trials.imported import folder, pairing, records, roles
from trials.imported.folder import Model
from trials.imported.pairing import Measured
from trials.ledger.lease import acquire
from trials.ledger.record import NAME, Ledger, TrialRecord
from trials.ledger.storage import check_store, exists, is_link, refuse_link
from trials.printable import one_line
from trials.spec import TrialSpec

MOST_OBJECTIVES = 4  # with more, almost every model is on the front
_PATH = "model"  # the one setting of an imported trial
_POLL = 0.1  # seconds between two looks at the lease of another import


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


@dataclass(frozen=True)
class _Earlier:
    """An earlier import into the same folder."""

    place: Path
    manifest: Manifest
    records: Mapping[str, TrialRecord]
    """By key; without the lost and the damaged ones."""

    @property
    def base_key(self) -> str:
        return self.manifest.baselines[0]

    @property
    def spec(self) -> TrialSpec | None:
        """That of all its records: the base, and the roles. None where no record is left."""
        return next((record.spec for record in self.records.values()), None)


@dataclass(frozen=True)
class _Sweep:
    """What an import would write."""

    manifest: Manifest
    measured: tuple[Measured, ...]
    """The base, then its tunes."""
    notes: tuple[str, ...]


def import_results(source: Path, storage: Path, request: Request, say: Callable[[str], None]) -> Path:
    """Writes the records and the manifest; returns the sweep's folder. Raises InputError before anything is written."""
    if not re.fullmatch(NAME, request.name) or request.name.lower() == "ledger":
        raise InputError(
            f"--name: up to 200 letters a to z, digits, dots, dashes and underscores, not {one_line(request.name)!r}"
        )
    check_store(storage)
    place, ledger = refuse_link(storage / request.name), Ledger(storage)
    refuse_link(ledger.root)
    found = folder.models(source)
    while True:  # again if another import has written meanwhile
        earlier = _earlier(place, ledger)
        sweep = _sweep(source, found, ledger, earlier, request)
        lost = [one for one in sweep.measured if _stored(ledger, one.record.key) is None]
        if not lost and earlier is not None and sweep.manifest.model_dump() == earlier.manifest.model_dump():
            written: list[str] | None = []
        else:
            written = _write(place, ledger, earlier, sweep.manifest, lost)
        if written is not None:
            for line in (*sweep.notes, *written):
                say(f"note: {line}")
            return place


def _sweep(source: Path, found: Sequence[Model], ledger: Ledger, earlier: _Earlier | None, request: Request) -> _Sweep:
    """The paired models. Raises InputError for anything that is no pair, and for a request that the folder cannot meet."""
    base_model = _base_of(found, source, request.base, earlier)
    spec = _spec(base_model or found[0], earlier, request)
    base = _stored_base(ledger, earlier) if base_model is None else records.measured(base_model, spec, True)
    if earlier is not None and base.record.key != earlier.base_key:
        raise InputError(
            f"{earlier.place}: was imported with another base, other roles or other results of the base ("
            f"{earlier.base_key}, now {base.record.key}); give the same ones, or another --name"
        )
    tunes = [records.measured(model, base.record.spec, False) for model in found if model is not base_model]
    if not tunes:
        raise InputError(f"{source}: holds {base.record.spec.base.model} alone; a base and a tune of it are needed")
    notes: list[str] = []
    for one in tunes:
        pairing.check(base, one)
        notes += pairing.differences(base.record, one.record)
    manifest = _manifest(request, base.record, earlier, _entries(earlier, base.record, tunes, notes))
    return _Sweep(manifest, (base, *tunes), tuple(notes))


def _write(
    place: Path, ledger: Ledger, earlier: _Earlier | None, manifest: Manifest, lost: Sequence[Measured]
) -> list[str] | None:
    """Writes the manifest and the records that are not in the ledger. Returns notes; None, and writes nothing, where another
    import has written since `earlier` was read."""
    while (lease := acquire(refuse_link(place / "importing"))) is None:
        time.sleep(_POLL)
    with lease:
        now = _earlier(place, ledger)
        if (now and now.manifest) != (earlier and earlier.manifest):
            return None
        damaged = [one.record.key for one in lost if _is_damaged(ledger, one.record.key)]
        notes = [f"a damaged record was set aside: {ledger.set_aside(key)}" for key in damaged]
        for one in lost:
            ledger.write(one.record, one.documents)
        manifest.write(place)
    return notes


# ---------------------------------------------------------------------- the base


def _base_of(found: Sequence[Model], source: Path, wanted: str | None, earlier: _Earlier | None) -> Model | None:
    """The base among the models. None where the base is that of an earlier import, and this folder has its tunes alone."""
    if wanted is not None:
        return _named(found, source, wanted)
    if earlier is not None and earlier.spec is not None:
        known = earlier.spec.base.model
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


def _spec(model: Model, earlier: _Earlier | None, request: Request) -> TrialSpec:
    """The earlier import's, whose roles a later one may repeat; else one with `model` as the base and the requested roles."""
    if earlier is None or earlier.spec is None:
        return records.spec(model, roles.evaluations(model, request.roles))
    known = earlier.spec.eval
    if request.roles and roles.evaluations(model, request.roles) != known:
        raise InputError(
            f"{earlier.place}: --role differs from the roles of the earlier import ({', '.join(known)}); leave it out, or give "
            "another --name"
        )
    return earlier.spec


def _stored_base(ledger: Ledger, earlier: _Earlier | None) -> Measured:
    """The base of the earlier import, from the ledger."""
    assert earlier is not None
    assert earlier.spec is not None
    found = _stored(ledger, earlier.base_key)
    if found is None:
        raise InputError(
            f"{ledger.folder(earlier.base_key)}: the record of the base is lost; import a folder that holds the results of "
            f"{earlier.spec.base.model} too"
        )
    return found


# ---------------------------------------------------------------------- the ledger


def _stored(ledger: Ledger, key: str) -> Measured | None:
    """A record with its documents; None where one of the two is lost or damaged."""
    record = _record(ledger, key)
    try:
        return Measured(record, ledger.documents(key)) if record is not None else None
    except (FileNotFoundError, ArrowInvalid):
        return None


def _record(ledger: Ledger, key: str) -> TrialRecord | None:
    try:
        return ledger.complete(key)
    except InputError:  # damaged: `status` reports it, and the model's next import replaces it
        return None


def _is_damaged(ledger: Ledger, key: str) -> bool:
    try:
        ledger.read(key)
    except InputError:
        return True
    return False


# ---------------------------------------------------------------------- the manifest


def _earlier(place: Path, ledger: Ledger) -> _Earlier | None:
    if not exists(place / "manifest.json") and not is_link(place / "manifest.json"):
        if exists(place / "sweep.yaml"):
            raise InputError(f"{place}: holds a sweep of this program; give another --name")
        return None
    found = Manifest.read(place)
    if not found.imported:
        raise InputError(f"{place}: holds a sweep of this program; give another --name")
    keys = [*found.baselines, *(trial.key for trial in found.trials if trial.key)]
    readable = {key: record for key in keys if (record := _record(ledger, key)) is not None}
    return _Earlier(place, found, readable)


def _entries(earlier: _Earlier | None, base: TrialRecord, tunes: Sequence[Measured], notes: list[str]) -> list[ManifestTrial]:
    """The trials with their labels. New results of a model replace its old ones under the same number; `notes` gets a line."""
    trials = [trial for trial in (earlier.manifest.trials if earlier is not None else ()) if trial.key]
    keys = {trial.number: trial.key or "" for trial in trials}
    names = {trial.number: _model(earlier, trial) for trial in trials}
    imported = {one.record.key for one in tunes}
    # of a lost record only the label is left, the end of its model's name
    lost = {number for number, key in keys.items() if earlier is not None and key not in earlier.records.keys() | imported}
    for one in tunes:
        name, key = one.record.imported.model, one.record.key  # type: ignore[union-attr]
        number = next(
            (
                number
                for number, known in names.items()
                if keys[number] == key or name == known or (number in lost and name.endswith(f"/{known}"))
            ),
            max(keys, default=-1) + 1,
        )
        if keys.get(number, key) != key:
            notes.append(f"trial #{number}: new results of {name} replace {keys[number]}")
        keys[number], names[number] = key, name
        lost.discard(number)
    short = folder.labels(list(dict.fromkeys(names.values())))
    return [
        ManifestTrial(number=number, key=key, baseline=base.key, params={_PATH: short[names[number]]})
        for number, key in sorted(keys.items())
    ]


def _model(earlier: _Earlier | None, trial: ManifestTrial) -> str:
    """The name of a trial's model; its label where the record is lost."""
    record = earlier.records.get(trial.key or "") if earlier is not None else None
    return record.imported.model if record is not None and record.imported is not None else str(trial.params.get(_PATH))


def _manifest(request: Request, base: TrialRecord, earlier: _Earlier | None, entries: list[ManifestTrial]) -> Manifest:
    objectives, constraints = _objectives(request, base, earlier), list(request.constraints)
    for constraint in constraints:
        parse_constraint(constraint, base.scores)
    return Manifest(
        schema_number=1,
        name=request.name,
        objectives=objectives,
        constraints=constraints or (earlier.manifest.constraints if earlier is not None else []),
        space=[_PATH],
        trials=entries,
        baselines=[base.key],
        budget=len(entries),
        documents=request.documents or (earlier.manifest.documents if earlier is not None else "half"),
    )


def _objectives(request: Request, base: TrialRecord, earlier: _Earlier | None) -> list[Objective]:
    if request.objectives:
        made = [_objective(text) for text in request.objectives]
        for one in made:
            split_metric(one.metric, base.scores)
        return made
    if earlier is not None:
        return list(earlier.manifest.objectives)
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
