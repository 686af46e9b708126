"""A sweep's folder as an earlier command left it: its pins, whether a trial has finished, what has changed since."""

import datetime as dt
import itertools
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import yaml

from analysis.results.manifest import Manifest
from orchestrator.config.model import SweepConfig
from orchestrator.config.pins import Pins, model_name, source_name, task_name
from orchestrator.search.study_storage import study_folder
from trials.errors import InputError
from trials.hub import identity, pinning
from trials.hub.hub import SELF, Hub, commit_of
from trials.ledger.record import Ledger
from trials.ledger.storage import NotAFile, exists, read_text, rename
from trials.tasks.folder import located

_PINNED_PATHS = ("base.", "eval.", "data.template", "data.replay.", "data.sources.")
"""Searched settings that choose models, data or tasks."""


def pinned(config: SweepConfig, storage: Path) -> SweepConfig:
    """The config pinned to the current models and data. A sweep with a finished trial keeps its pins.

    Raises InputError where a file is missing or has changed since the sweep began.
    """
    folder, ledger = storage / config.name, Ledger(storage)
    _refuse_imported(folder)
    for include in {evaluation.include for evaluation in config.eval.values() if evaluation.include is not None}:
        if storage.is_relative_to(located(include)):  # every record would change the tasks
            raise InputError(f"storage: {storage} is inside the task folder {include}; give the tasks a folder of their own")
    earlier = _sweep_yaml(folder)
    begun = Pins() if earlier is None else _parse_pins(earlier.get("pins", {}), folder)
    now = _current_pins(config, begun)
    if earlier is None or not finished(folder, ledger):
        return config.model_copy(update={"pins": now})
    if changed := _changed(begun, now):
        raise InputError(
            f"{folder}: {', '.join(changed)} changed since this sweep began; put the old state back, or give the sweep a new "
            "`name`: trials on the new state are not compared with those on the old one"
        )
    # what was not pinned at the start (by an earlier version, or without a network) stays unpinned: the keys depend on it
    config = config.model_copy(update={"pins": now.only(begun)})
    _check_weights(config, ledger, folder)
    return config


def _refuse_imported(folder: Path) -> None:
    """Raises InputError for a folder of imported results: a sweep there would replace their manifest."""
    try:
        imported = Manifest.read(folder).imported
    except InputError:  # none, or a damaged one, which a sweep sets aside
        return
    if imported:
        raise InputError(f"{folder}: holds results that were imported; give this sweep another `name` or --storage")


def finished(folder: Path, ledger: Ledger) -> bool:
    """Whether any trial of the sweep, not counting baselines, has finished. An unreadable manifest counts as one that has."""
    if _study_has_finished(folder):  # the manifest is written once a second
        return True
    if not exists(folder / "manifest.json"):
        return False
    try:
        trials = Manifest.read(folder).trials
    except InputError:
        return True
    return any(trial.given_up for trial in trials) or any(_complete(ledger, key) for trial in trials for key in trial.keys)


def _study_has_finished(folder: Path) -> bool:
    path = study_folder(folder) / "study.db"
    if not path.is_file() or path.is_symlink():
        return False
    try:
        with closing(sqlite3.connect(path)) as connection:
            query = "SELECT 1 FROM trials WHERE state IN ('COMPLETE', 'PRUNED') LIMIT 1"
            return connection.execute(query).fetchone() is not None
    except sqlite3.Error:  # no study yet, or a damaged one: the manifest decides
        return False


def may_start_over(config: SweepConfig, folder: Path, ledger: Ledger) -> bool:
    """Whether the study may be replaced: nothing has finished, and no other command can be using it."""
    earlier = _sweep_yaml(folder)
    kinds = (config.search.study, None if earlier is None else earlier.get("search", {}).get("study"))
    return kinds == ("sqlite", "sqlite") and not finished(folder, ledger)


def set_aside(folder: Path) -> None:
    """Renames the study and the manifest of a sweep that starts over."""
    study = study_folder(folder) / "study.db"
    for path in (study, folder / "manifest.json"):
        if exists(path):
            names = (path.with_name(f"{path.name}.before{f'-{n}' if n else ''}") for n in itertools.count())
            rename(path, next(name for name in names if not exists(name)))


def _complete(ledger: Ledger, key: str) -> bool:
    try:
        return ledger.complete(key) is not None
    except InputError:  # a damaged record was complete once; the sweep sets it aside
        return True


def _sweep_yaml(folder: Path) -> dict[str, Any] | None:
    """The sweep.yaml of an earlier command; None where it is missing or unreadable. `claim_folder` reports the latter."""
    try:
        found = yaml.safe_load(read_text(folder / "sweep.yaml"))
    except (FileNotFoundError, NotAFile, ValueError, RecursionError, yaml.YAMLError):
        return None
    return found if isinstance(found, dict) else None


def _parse_pins(found: Any, folder: Path) -> Pins:
    try:
        return Pins.model_validate(found)
    except ValueError:
        raise InputError(f"{folder / 'sweep.yaml'}: its pins cannot be read; move it away, and the sweep goes on") from None


def _changed(begun: Pins, now: Pins) -> list[str]:
    """Names of the pins whose files differ from those of `begun`. Commits of the hub never do: `_settle` keeps them."""
    earlier = begun.flat()
    return [name for name, pin in now.flat().items() if name in earlier and earlier[name] != pin]


def _current_pins(config: SweepConfig, begun: Pins) -> Pins:
    """The config's own pins, then the commits and the date of `begun`, then what this machine has."""
    hub, given = Hub(config.hub_mirror), config.pins
    unpinned = config.model_copy(update={"pins": Pins()})
    specs = [unpinned.spec(point) for point in unpinned.corners(_PINNED_PATHS)]
    # first: a misspelt model is refused here at once, and where its tokenizer is read after a minute of retries
    models = {model_name(spec.base): identity.of_base(spec.base, hub) for spec in {spec.base: spec for spec in specs}.values()}
    sources = {
        source_name(spec.data, name): (spec.data, name)
        for spec in specs
        for name in (*spec.data.mix, spec.data.replay.source or SELF)
        if name != SELF
    }
    tasks = {
        task_name(role, evaluation, name): (name, evaluation.include)
        for spec in specs
        for role, evaluation in spec.eval.items()
        for name in evaluation.tasks
    }
    chats = {spec.base: None for spec in specs if spec.chats}
    date = given.date or begun.date
    if date is None and any(pinning.template_is_dated(base, hub) for base in chats):
        date = dt.date.today()
    return Pins(
        models=_settle(models, given.models, begun.models),
        data=_settle({name: identity.of_source(*one, hub) for name, one in sources.items()}, given.data, begun.data),
        tasks={
            name: _settle(found, given.tasks.get(name, {}), begun.tasks.get(name, {}))
            for name, named in sorted(tasks.items())
            if (found := identity.of_task(*named, hub))
        },
        date=date,
    )


def _settle(found: dict[str, str | None], given: dict[str, str], begun: dict[str, str]) -> dict[str, str]:
    settled = {}
    for name, pin in found.items():
        # a commit is kept while the files still come from the hub: a newer commit is no change
        kept = begun.get(name) if commit_of(begun.get(name)) and (pin is None or commit_of(pin)) else None
        if chosen := given.get(name) or kept or pin:
            settled[name] = chosen
    return settled


def _check_weights(config: SweepConfig, ledger: Ledger, folder: Path) -> None:
    """Raises InputError where a base's weights differ from those in its baseline's record."""
    hub = Hub(config.hub_mirror)
    for spec in config.baseline_specs():
        try:
            record = ledger.complete(spec.key)
        except InputError:  # damaged: the sweep sets it aside, and the baseline runs again
            continue
        now = identity.weights(spec.base, hub)
        if record is not None and record.base_checksum is not None and now is not None and record.base_checksum != now:
            raise InputError(
                f"{folder}: the weights of {spec.base.model} changed since this sweep began (checksum {now[:12]}, its baseline "
                f"{spec.key} has {record.base_checksum[:12]}); put the old ones back, or give the sweep a new `name`"
            )
