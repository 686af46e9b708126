"""Whether a trial's model, data and tasks can be had, before anything is loaded. Quick to import: see trials/tasks.py."""

from collections import Counter

from trials import base, identity, mix
from trials.errors import InputError
from trials.hub import SELF, Hub, find_source
from trials.spec import TrialSpec
from trials.tasks import Tasks, same_split
from trials.tasks import check as check_role


def check(spec: TrialSpec, hub: Hub, tasks: Tasks) -> None:
    """Raises InputError when the model, a source or a task cannot be had, or when a source is also evaluated on."""
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
    needed = Counter(mix.order_of_rows(spec.data))
    for name, share in spec.data.shares.items():
        source = find_source(spec.data, name)
        if name == SELF:
            continue
        for role, evaluation in spec.eval.items():
            if task := same_split(evaluation, source.dataset, source.config, source.split, tasks):
                raise InputError(
                    f"data.mix: source {name!r} is {source.dataset}/{source.split}, the very split that task {task} "
                    f"(eval.{role}) is scored on; train on another split"
                )
        rows = len(hub.rows(name, source))
        kept = mix.held_out(rows) if name in spec.data.mix else 0
        if needed[name] > rows - kept:
            raise InputError(
                f"data.samples: {spec.data.samples} with a share of {share:g} needs {needed[name]} rows of {name!r}; "
                f"it has {rows}" + (f", of which {kept} are held out" if kept else "")
            )
