"""A look at a trial before its training ends: an adapter of the first rows, on the first documents."""

from dataclasses import replace

from trials.adapters import peft_adapter
from trials.evaluation.racing import Race, unjudged
from trials.run.attempt import Attempt
from trials.run.evaluation_phase import run_stages
from trials.run.session import Session
from trials.run.training_phase import Progress, mix_rows, train


def look_early(session: Session, attempt: Attempt, race: Race) -> None:
    """Trains on the first share of the rows and evaluates the first documents; raises Paused.

    Returns where that decides nothing, where the training is too short to be cut, or where an earlier attempt has gone past the
    cut. The training goes on from its state.
    """
    assert race.pause is not None
    spec = attempt.spec
    batch, rows = spec.train.batch_size, spec.data.rows * spec.train.epochs
    until = int(race.pause.rows * rows) // batch * batch
    if until == 0:
        return
    begun = Progress.of(attempt, mix_rows(session, attempt)).newest()
    if begun is not None and begun.step > until // batch:  # its adapter has seen more rows than the look is to be after
        return
    part = replace(attempt, keep=(), until=until)
    part.adapter = train(session, part)[0]
    with peft_adapter.borrowed(session.base(spec.base), part.adapter) as model:
        part.checkpoints = part.checkpoints.bound(weights=peft_adapter.checksum(part.adapter))
        with peft_adapter.merged(model) as whole:
            # a judge knows trials of all rows alone
            run_stages(session, part, whole, replace(race, judge=unjudged))
