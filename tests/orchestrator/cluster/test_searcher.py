"""Tune's trials hold several trials of the sweep; their outcomes reach the sweep."""

import pytest
from ray.tune.search import Searcher

from orchestrator.cluster.searcher import StudySearcher
from orchestrator.config.model import SweepConfig
from orchestrator.sweep.controller import SweepController
from tests.factories.sweep_state import leave
from trials.spec import TrialSpec


@pytest.fixture
def sweep(parts, tmp_path) -> SweepController:
    """A baseline and eight trials."""
    parts["space"]["lora.rank"]["choices"] = [1, 2, 3, 4, 5, 6, 7, 8]
    return SweepController.open(SweepConfig.model_validate(parts), tmp_path)


def specs(suggested) -> list[TrialSpec]:
    return [TrialSpec.model_validate_json(job["spec"]) for job in suggested["jobs"]]


def done(sweep: SweepController, searcher: StudySearcher, name: str, suggested, held: tuple[str, ...] = ()) -> None:
    """Reports them as a worker does."""
    ends = ["held" if spec.key in held else "record" for spec in specs(suggested)]
    for spec in specs(suggested):
        if spec.key not in held:
            leave(sweep, sweep.running[spec.key])
    searcher.on_trial_complete(name, {"ends": ends, "reasons": [""] * len(ends), "seconds": 10.0})


def sizes(sweep: SweepController, workers: int, together: int) -> list[int]:
    """Sizes of the workers' batches, in waves: each wave ends before the next."""
    searcher, found = StudySearcher(sweep, lambda: workers, together), []
    while True:
        wave = {str(number): searcher.suggest(str(number)) for number in range(workers)}
        wave = {name: one for name, one in wave.items() if isinstance(one, dict)}
        if not wave:
            return found
        found += [len(one["jobs"]) for one in wave.values()]
        for name, one in wave.items():
            done(sweep, searcher, name, one)


@pytest.mark.parametrize(
    ("workers", "together", "wanted"),
    [(1, 1, [1] * 9), (2, 8, [5, 4]), (2, 3, [3, 3, 2, 1]), (3, 8, [3, 3, 3]), (1, 20, [9])],
)
def test_waiting_jobs_are_shared_evenly_up_to_the_limit(sweep, workers, together, wanted):
    assert sizes(sweep, workers, together) == wanted
    assert sweep.over
    assert sweep.counts == {"done": 8, "failed": 0, "given up": 0}


def test_workers_do_not_exceed_the_slots(sweep):
    searcher = StudySearcher(sweep, lambda: 1, 4)
    first = searcher.suggest("a")
    assert searcher.suggest("b") is None
    done(sweep, searcher, "a", first)
    assert len(searcher.suggest("b")["jobs"]) == 4


def test_jobs_of_a_dead_worker_run_alone_and_only_the_culprit_fails(sweep):
    searcher = StudySearcher(sweep, lambda: 1, 4)
    batch = specs(searcher.suggest("a"))
    leave(sweep, sweep.running[batch[0].key])  # before the worker died
    searcher.on_trial_complete("a", error=True)
    culprit, run = batch[2].key, []
    for number in range(20):
        suggested = searcher.suggest(str(number))
        if not isinstance(suggested, dict):
            break
        keys = [spec.key for spec in specs(suggested)]
        run.append(keys)
        if culprit in keys:
            searcher.on_trial_complete(str(number), error=True)
        else:
            done(sweep, searcher, str(number), suggested)
    alone = [keys for keys in run if {spec.key for spec in batch} & set(keys)]
    assert sorted(alone) == sorted([spec.key] for spec in batch[1:])  # the first one's record was there
    assert sweep.counts == {"done": 7, "failed": 1, "given up": 0}
    assert sweep.ledger.read(culprit).failure.kind == "WorkerDied"


def test_held_job_is_awaited_and_the_others_share_the_time(sweep):
    searcher = StudySearcher(sweep, lambda: 1, 4)
    first = searcher.suggest("a")
    elsewhere = specs(first)[1]
    lease = sweep.ledger.lease(elsewhere.key)
    done(sweep, searcher, "a", first, held=(elsewhere.key,))
    assert sweep.spent[0] == pytest.approx(10.0)
    while isinstance(suggested := searcher.suggest("b"), dict):
        done(sweep, searcher, "b", suggested)
    assert not sweep.over
    assert sweep.counts["done"] == 7
    assert suggested == Searcher.FINISHED  # Tune ends its idle workers then, and the other process may need their place
    lease.release()  # without a record
    assert searcher.wait()
    assert [spec.key for spec in specs(searcher.suggest("c"))] == [elsewhere.key]
