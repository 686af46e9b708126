"""The evaluation phase: answers the documents of every role, in stages where the trial may be stopped early."""

from typing import Any, NamedTuple, Protocol

import pandas as pd

from trials.evaluation import aggregate, racing
from trials.evaluation import evaluate as scoring
from trials.evaluation.racing import GivenUp, Race
from trials.ledger.outcomes import STAGES
from trials.ledger.record import Halving
from trials.run.attempt import Attempt
from trials.run.session import Session
from trials.spec import TrialSpec


class EarlyStopping(Protocol):
    """Decides which trials are judged while they are evaluated, and how; None for a trial that nothing stops."""

    def __call__(self, spec: TrialSpec) -> Race | None: ...


def never(spec: TrialSpec) -> None:
    """The early stopping that stops no trial."""


class _Part(NamedTuple):
    """Documents of a role that are answered together."""

    role: str
    name: str
    """Of their checkpoint."""
    samples: dict[str, list[int]] | None = None
    """Sorted numbers by task; None: all of the role's."""


def evaluate(session: Session, attempt: Attempt, model: Any, early_stopping: EarlyStopping) -> pd.DataFrame:
    """The outcomes of all roles, a row a document; fills the record's scores.

    Raises GivenUp where the trial is stopped early.
    """
    record, frames = attempt.record, []
    if race := early_stopping(attempt.spec):
        _run_stages(session, attempt, model, race)
    for role in attempt.spec.eval:
        documents = _role(session, attempt, model, role)
        record.scores[role], record.details[role] = aggregate.scores(documents)
        record.halves[role] = aggregate.halves(documents)
        frames.append(documents)
    together = pd.concat(frames, ignore_index=True)
    # texts are long and the same for all models: the baseline keeps them
    return together if attempt.spec.is_baseline else together.drop(columns=["question", "cluster"], errors="ignore")


def _run_stages(session: Session, attempt: Attempt, model: Any, race: Race) -> None:
    """Answers the documents in stages; raises GivenUp where the judge stops the trial after one of them."""
    if any(attempt.checkpoints.load_documents(role) for role in race.roles):
        return  # an earlier attempt was beyond the stages
    documents, plans = {}, {}
    for role in race.roles:
        evaluation = attempt.spec.eval[role]
        built = session.tasks.build(evaluation)
        documents[role] = racing.documents(built, scoring.document_numbers(evaluation, built))
        plans[role] = racing.stages(documents[role], race.half)
    answered: dict[str, list[pd.DataFrame]] = {role: [] for role in race.roles}
    for number, share in enumerate(STAGES):
        for role, plan in plans.items():
            if plan[number]:
                answered[role].append(_answer(session, attempt, model, _Part(role, f"{role}@{number}", plan[number])))
        outcomes = {role: racing.so_far(role, documents[role], some) for role, some in answered.items() if some}
        if reason := race.judge(attempt.record.model_copy(update={"outcomes": outcomes}), share):
            raise GivenUp(reason)


def _role(session: Session, attempt: Attempt, model: Any, role: str) -> pd.DataFrame:
    """The role's documents; those that the stages of a race have answered are not answered again."""
    record, evaluation = attempt.record, attempt.spec.eval[role]
    found = [attempt.checkpoints.load_documents(f"{role}@{number}") for number in range(len(STAGES))]
    parts = [one for one in found if one is not None]
    if not parts:
        return _answer(session, attempt, model, _Part(role, role))
    frames, took = [frame for _, frame in parts], sum(state["seconds"] for state, _ in parts)
    for frame in frames:
        record.engine.setdefault(role, {}).update(frame.attrs.get("engine", {}))
    record.seconds.pop(f"evaluate.{role}", None)
    if rest := racing.without(scoring.document_numbers(evaluation, session.tasks.build(evaluation)), frames):
        frames.append(_answer(session, attempt, model, _Part(role, role, rest)))
    record.seconds[f"evaluate.{role}"] = round(record.seconds.get(f"evaluate.{role}", 0.0) + took, 3)
    return racing.together(frames)


def _answer(session: Session, attempt: Attempt, model: Any, part: _Part) -> pd.DataFrame:
    """The documents of a part: from an earlier attempt's checkpoint, or evaluated now and kept in one."""
    record, evaluation, phase = attempt.record, attempt.spec.eval[part.role], f"evaluate.{part.role}"
    if kept := attempt.checkpoints.load_documents(part.name):
        state, documents = kept
        record.seconds[phase] = state["seconds"]
        record.out_of_memory += [Halving.model_validate(one) for one in state["out_of_memory"]]
        record.engine.setdefault(part.role, {}).update(documents.attrs.get("engine", {}))
        return documents
    tokenizer, before = session.base(attempt.spec.base).tokenizer, len(record.out_of_memory)

    def score(rows: int) -> pd.DataFrame:
        engine = scoring.make_engine(evaluation.engine, model, tokenizer, rows)
        return scoring.evaluate(engine, part.role, evaluation, session.tasks, part.samples)

    with attempt.phase(phase):
        documents = attempt.with_oom_backoff(phase, evaluation.batch_size, score)
    record.engine.setdefault(part.role, {}).update(documents.attrs["engine"])
    halvings = [one.model_dump() for one in record.out_of_memory[before:]]
    attempt.checkpoints.save_documents(part.name, {"seconds": record.seconds[phase], "out_of_memory": halvings}, documents)
    return documents
