"""Joint training: trains the adapters of several trials in one pass over their base."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from trials.adapters import peft_adapter
from trials.errors import StorageFailed
from trials.models import oom
from trials.run import provenance
from trials.run.attempt import Attempt
from trials.run.session import Session
from trials.run.training_phase import JointTraining, Progress, TrainingRows, mix_rows, prepare
from trials.training import multi_adapter, trainer


@dataclass
class Member:
    """A trial of a joint training."""

    attempt: Attempt
    rows: TrainingRows | None = None
    progress: Progress | None = None
    beginning: trainer.State | None = None
    end: trainer.State | None = None
    error: Exception | None = None
    """The error that ended this trial."""

    @property
    def result(self) -> JointTraining | None:
        return JointTraining(self.rows, self.end) if self.rows is not None else None

    def newest(self) -> trainer.State:
        """The newest state, with its weights in the model's order."""
        assert self.progress is not None
        assert self.beginning is not None
        state = self.progress.newest() or self.beginning
        return replace(state, weights={name: state.weights[name] for name in self.beginning.weights})


def train_jointly(session: Session, members: Sequence[Member]) -> None:
    """Sets `end` or `error` of every member; neither for one that has to be trained alone."""
    for member in members:
        try:
            _make_ready(session, member)
        except StorageFailed:
            raise
        except Exception as error:  # noqa: BLE001  # becomes the failed record of this trial only
            member.error = error
    ready = [member for member in members if member.error is None]
    sizes = [member.newest().micro_batch_size for member in ready]  # an earlier attempt may have halved it
    for wanted in sorted(set(sizes)):
        _fit(session, [member for member, size in zip(ready, sizes, strict=True) if size == wanted])


def _make_ready(session: Session, member: Member) -> None:
    attempt = member.attempt
    spec, loaded = attempt.spec, prepare(session, attempt)
    member.rows = mix_rows(session, attempt)
    member.progress = Progress.of(attempt, member.rows)
    with peft_adapter.adapted(loaded, spec.lora, spec.train.seed, member.rows.begins_at) as model:
        member.beginning = trainer.beginning(model, spec.train)
    member.progress.resume()


def _fit(session: Session, members: Sequence[Member]) -> None:
    """Trains the members together; out of memory, each half by itself. A single member is left for a training alone."""
    if len(members) < 2:
        return
    provenance.reset_peak_memory()
    try:
        trainings = _pass(session, members)
    except multi_adapter.Unstackable:
        return
    except StorageFailed:
        raise
    except Exception as error:  # noqa: BLE001  # becomes the failed record of each member
        if not oom.is_out_of_memory(error):
            for member in members:
                member.error = error
            return
    else:
        for member, training in zip(members, trainings, strict=True):
            member.end, member.error = training.end, training.failure
            record = member.attempt.record
            record.together = len(members)
            record.seconds["train"] = round(training.seconds, 3)
            record.memory["train"] = provenance.peak_memory()
        return
    oom.release()  # after the except block, whose error kept the frames with the tensors alive
    half = (len(members) + 1) // 2
    _fit(session, members[:half])
    _fit(session, members[half:])


def _pass(session: Session, members: Sequence[Member]) -> list[multi_adapter.Training]:
    loaded = session.base(members[0].attempt.spec.base)
    trainings = []
    for member in members:
        assert member.rows is not None
        assert member.progress is not None
        spec, reporter, start = member.attempt.spec, member.attempt.reporter, member.newest()
        inputs = trainer.TrainingInputs(
            model=loaded.model,
            pad_id=loaded.tokenizer.pad_token_id,
            rows=member.rows.rows,
            settings=spec.train,
            save=member.progress.save,
            pace=session.pace,
            reached=reporter.step,
        )
        reporter.phase("train")
        reporter.training(trainer.tokens(member.rows.rows, spec.train.batch_size), start.step, len(members))
        trainings.append(multi_adapter.Training(spec.lora, inputs, start))
    multi_adapter.fit(trainings)
    return trainings
