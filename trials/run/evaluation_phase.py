"""The evaluation phase: evaluates the documents of every role, in stages where the trial may be stopped early."""

from typing import Any, NamedTuple, Protocol

import pandas as pd

from trials.evaluation import aggregate, racing
from trials.evaluation import evaluate as scoring
from trials.evaluation.engine.protocol import Engine
from trials.evaluation.engine.vllm_engine import VllmEngine
from trials.evaluation.racing import Paused, Race, StoppedEarly
from trials.ledger.outcomes import SHARES_SCALE, STAGES
from trials.ledger.record import Halving
from trials.run.attempt import Attempt
from trials.run.session import Session
from trials.spec import TrialSpec
from trials.tasks.splits import document_numbers


class EarlyStopping(Protocol):
    """Decides whether and how a trial is judged during its evaluation; None: it is not."""

    def __call__(self, spec: TrialSpec) -> Race | None: ...


def never(spec: TrialSpec) -> None:
    """Early stopping that stops no trial."""


class _Part(NamedTuple):
    """Documents of a role that are evaluated together."""

    role: str
    name: str
    """The name of their checkpoint."""
    samples: dict[str, list[int]] | None = None
    """Sorted document numbers by task; None: all documents of the role."""
    before: int = 0
    """Documents of the role in the parts before."""


def evaluate(session: Session, attempt: Attempt, model: Any, race: Race | None) -> pd.DataFrame:
    """Evaluates all roles. Fills the record's scores; returns the outcomes, a row a document. May raise StoppedEarly."""
    record, frames = attempt.record, []
    for role, evaluation in attempt.spec.eval.items():
        if (scale := scoring.scale(evaluation, session.tasks)) != SHARES_SCALE:
            record.scales[role] = scale
    if race is not None:
        run_stages(session, attempt, model, race)
    for role in attempt.spec.eval:
        documents = _role(session, attempt, model, role)
        if (scale := aggregate.observed(documents, record.scale(role))) != SHARES_SCALE:
            record.scales[role] = scale
        record.scores[role], record.details[role] = aggregate.scores(documents, scale)
        record.halves[role] = aggregate.halves(documents, scale)
        frames.append(documents)
    together = pd.concat(frames, ignore_index=True)
    # these texts are long and equal for all models, so only the baseline keeps them
    return together if attempt.spec.is_baseline else together.drop(columns=["question", "cluster"], errors="ignore")


def run_stages(session: Session, attempt: Attempt, model: Any, race: Race) -> None:
    """Evaluates the documents in stages. Raises StoppedEarly where the judge stops the trial after one of them, Paused at the
    race's pause. After a part of the training rows (Attempt.until) the outcomes serve the look alone."""
    if any(attempt.checkpoints.load_documents(role) for role in race.roles):
        return  # an earlier attempt has passed all stages
    documents, plans = {}, {}
    for role in race.roles:
        evaluation = attempt.spec.eval[role]
        built = session.tasks.build(evaluation)
        documents[role] = racing.documents(built, document_numbers(evaluation, built))
        plans[role] = racing.stages(documents[role], race.half, race.shares)
    judged = racing.judged(documents, race)
    if not judged:
        return  # each stage would only cut the batches
    answered: dict[str, list[pd.DataFrame]] = {role: [] for role in race.roles}
    attempt.reporter.takes_turns()
    for number, share in enumerate(race.shares):
        for role, plan in plans.items():
            name = f"{role}@{number}" if attempt.until is None else f"{role}@{number}.{attempt.until}"
            if number not in judged:  # an attempt that was judged or paused here has answered it by itself
                answered[role] += [kept[1]] if (kept := attempt.checkpoints.load_documents(name)) else []
            elif samples := racing.without(racing.until(plan, number), answered[role]):
                part = _Part(role, name, samples, sum(map(len, answered[role])))
                answered[role].append(_answer(session, attempt, model, part))
        if number not in judged:
            continue
        outcomes = {role: racing.so_far(role, documents[role], some) for role, some in answered.items() if some}
        # a copy: the partial outcomes never enter the record
        seen = attempt.record.model_copy(update={"outcomes": outcomes})
        if reason := race.judge(seen, share):
            raise StoppedEarly(reason)
        if race.pause and share >= race.pause.documents:
            rows = 1.0 if attempt.until is None else race.pause.rows
            if (look := race.pause.look(seen, rows, share)) is not None:
                raise Paused(look)


def _role(session: Session, attempt: Attempt, model: Any, role: str) -> pd.DataFrame:
    """The role's documents, without a second evaluation of those in the stages."""
    record, evaluation = attempt.record, attempt.spec.eval[role]
    found = [attempt.checkpoints.load_documents(f"{role}@{number}") for number in range(len(STAGES) + 1)]
    parts = [one for one in found if one is not None]
    if not parts:
        return _answer(session, attempt, model, _Part(role, role))
    frames, seconds = [frame for _, frame in parts], sum(state["seconds"] for state, _ in parts)
    for frame in frames:
        record.engine.setdefault(role, {}).update(frame.attrs.get("engine", {}))
    record.seconds.pop(f"evaluate.{role}", None)
    if rest := racing.without(document_numbers(evaluation, session.tasks.build(evaluation)), frames):
        frames.append(_answer(session, attempt, model, _Part(role, role, rest, sum(map(len, frames)))))
    record.seconds[f"evaluate.{role}"] = round(record.seconds.get(f"evaluate.{role}", 0.0) + seconds, 3)
    return racing.together(frames)


def _answer(session: Session, attempt: Attempt, model: Any, part: _Part) -> pd.DataFrame:
    """The documents of a part, from an earlier attempt's checkpoint, or evaluated and saved in one."""
    record, evaluation, phase = attempt.record, attempt.spec.eval[part.role], f"evaluate.{part.role}"
    if kept := attempt.checkpoints.load_documents(part.name):
        state, documents = kept
        record.seconds[phase] = state["seconds"]
        attempt.reporter.evaluated(record.seconds[phase])
        record.out_of_memory += [Halving.model_validate(one) for one in state["out_of_memory"]]
        record.engine.setdefault(part.role, {}).update(documents.attrs.get("engine", {}))
        return documents
    tokenizer, before = session.base(attempt.spec.base).tokenizer, len(record.out_of_memory)
    of = sum(map(len, document_numbers(evaluation, session.tasks.build(evaluation)).values()))

    def score(rows: int) -> pd.DataFrame:
        if evaluation.engine == "vllm":
            server = session.vllm(attempt.spec.base)
            engine: Engine = VllmEngine(model, tokenizer, rows, server, attempt.adapter)
        else:
            engine = scoring.make_engine(evaluation.engine, model, tokenizer, rows)
        engine.tally.report = lambda documents: attempt.reporter.documents(part.before + documents, of)
        attempt.reporter.documents(part.before, of)
        return scoring.evaluate(engine, part.role, evaluation, session.tasks, part.samples)

    with attempt.phase(phase):
        documents = attempt.with_oom_backoff(phase, evaluation.batch_size, score)
    attempt.reporter.evaluated(record.seconds[phase])
    record.engine.setdefault(part.role, {}).update(documents.attrs["engine"])
    halvings = [one.model_dump() for one in record.out_of_memory[before:]]
    attempt.checkpoints.save_documents(part.name, {"seconds": record.seconds[phase], "out_of_memory": halvings}, documents)
    return documents
