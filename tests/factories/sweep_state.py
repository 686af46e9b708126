"""Worlds for tests: sweep state."""

from orchestrator.sweep.controller import SweepController
from trials.ledger.record import Failure, Score, TrialRecord


def leave(sweep: SweepController, job, commonsense: float = 0.6, math: float = 0.8, seconds: float = 1.0) -> None:
    """What a worker would leave in the ledger."""
    scores = {"commonsense": Score(value=commonsense, stderr=0.1, n=10), "math": Score(value=math, stderr=0.1, n=10)}
    sweep.ledger.write(
        TrialRecord(key=job.spec.key, state="complete", spec=job.spec, scores=scores, seconds={"train": seconds})
    )


def fail(sweep: SweepController, job, kind: str = "ValueError") -> None:
    failure = Failure(kind=kind, message="no luck", traceback="Traceback ...")
    sweep.ledger.write(TrialRecord(key=job.spec.key, state="failed", spec=job.spec, failure=failure))


def fail_next(sweep: SweepController, times: int = 1, kind: str = "ValueError") -> None:
    for _ in range(times):
        job = sweep.next_job()
        fail(sweep, job, kind)
        sweep.finish(job.spec.key)


def complete(sweep: SweepController, job, **scores: float) -> None:
    leave(sweep, job, **scores)
    sweep.finish(job.spec.key)


def run_out(sweep: SweepController) -> list:
    jobs = []
    while job := sweep.next_job():
        jobs.append(job)
        complete(sweep, job)
    return jobs


def states(sweep: SweepController) -> list[str]:
    """The states of the study's trials."""
    return [trial.state for trial in sweep.study.trials()]
