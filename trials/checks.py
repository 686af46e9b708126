"""Whether a trial's model, data and tasks can be had, before anything is loaded. Quick to import: see trials/tasks.py."""

import tempfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from trials import base, identity, mix
from trials.errors import InputError
from trials.hub import SELF, Hub, find_source
from trials.spec import Data, TrialSpec
from trials.tasks import Tasks, same_split
from trials.tasks import check as check_role


def check_cache() -> None:
    """Raises InputError when prepared data sets cannot be kept: datasets writes there even to read what it prepared before."""
    import datasets

    folder = Path(datasets.config.HF_DATASETS_CACHE)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise InputError(
            f"{folder}: {error.strerror}; data sets are prepared there: set HF_HOME, or HF_DATASETS_CACHE alone, to a folder "
            "that can be written"
        ) from None


def check(spec: TrialSpec, hub: Hub, tasks: Tasks) -> None:
    """Raises InputError when the model, a source or a task cannot be had, or when a source is also evaluated on."""
    check_cache()
    if spec.train.backend == "unsloth" and not spec.is_baseline:
        from trials import unsloth  # the Trainer with it, which takes longer to import than all else here

        unsloth.check_settings(spec)
    base.check(spec.base, hub)
    identity.check(spec, hub)
    for role, evaluation in spec.eval.items():
        check_role(role, evaluation, tasks)
    if spec.is_baseline:
        return
    base.check_template(spec.base, spec.data, hub)
    for name in spec.data.shares:
        source = find_source(spec.data, name)
        if name == SELF:
            continue
        for role, evaluation in spec.eval.items():
            if task := same_split(evaluation, source.dataset, source.config, source.split, tasks):
                raise InputError(
                    f"data.mix: source {name!r} is {source.dataset}/{source.split}, the very split that task {task} "
                    f"(eval.{role}) is scored on; train on another split"
                )
    _check_rows(spec.data, hub)


def _check_rows(data: Data, hub: Hub) -> None:
    rows = {name: len(hub.rows(name, find_source(data, name))) for name in data.shares if name != SELF}
    kept = {name: mix.held_out(count) if name in data.mix else 0 for name, count in rows.items()}
    needed: Mapping[str, int] = {name: int(data.rows * share) for name, share in data.shares.items()}
    if all(needed[name] <= rows[name] for name in rows):  # else dealing them one by one could take hours
        needed = Counter(mix.order_of_rows(data))
    for name, share in data.shares.items():
        if name != SELF and needed[name] > rows[name] - kept[name]:
            raise InputError(
                f"data.samples: {data.samples} with a share of {share:g} needs {needed[name]} rows of {name!r}; "
                f"it has {rows[name]}" + (f", of which {kept[name]} are held out" if kept[name] else "")
            )
