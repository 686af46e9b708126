"""Every start is a resume: study, manifest, ledger and sweep.yaml become the state of the sweep.

Trials that no living driver runs keep their number and settings and run first. A trial is done only with a complete record.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from orchestrator.config.load import resolved
from orchestrator.config.model import SweepConfig
from orchestrator.search.study_client import StudyTrial
from orchestrator.sweep import earlier_run
from orchestrator.sweep.earlier_sweeps import earlier_trials
from orchestrator.sweep.intake import Intake
from orchestrator.sweep.outcome_reporter import OutcomeReporter
from orchestrator.sweep.queue import Job
from orchestrator.sweep.state import SweepState
from trials.errors import InputError
from trials.ledger.record import Ledger
from trials.ledger.storage import NotAFile, exists, is_link, read_text, set_aside, write_text

# A resumed sweep may change these parts of its config, and these of `search`.
_MAY_CHANGE = {"resources", "storage", "hub_mirror", "trackers", "pins"}
_SEARCH_MAY_CHANGE = {"sampler", "trials", "gpu_hours", "hours", "study", "racing", "multi_fidelity"}


def claim_folder(config: SweepConfig, folder: Path, ledger: Ledger, notice: Callable[[str], None]) -> None:
    """Writes sweep.yaml; InputError where the folder has another sweep of the same name."""
    path, text = folder / "sweep.yaml", resolved(config)
    if exists(path) or is_link(path):
        try:
            old = read_text(path)
            before, now = _identity(old), _identity(text)
        except (yaml.YAMLError, AttributeError, KeyError, TypeError, ValueError, RecursionError, OSError) as error:
            if isinstance(error, OSError) and not isinstance(error, NotAFile):
                raise
            aside = set_aside(path)
            notice(f"{path}: not the config of a sweep; set aside as {aside.name}, and written anew")
            old, before, now = "", {}, {}
        changed = sorted(name for name in {*before, *now} if before.get(name) != now.get(name))
        if changed and earlier_run.may_start_over(config, folder, ledger):
            notice(f"{folder}: no trial has finished, so the sweep starts over with another {', '.join(changed)}")
            earlier_run.set_aside(folder)
        elif changed:
            raise InputError(
                f"{path}: holds a sweep of this name with another {', '.join(changed)}; "
                "give this one another `name` or --storage"
            )
        if old == text:
            return
    write_text(path, text)


def _identity(text: str) -> dict[str, Any]:
    """The parts of a resolved config that identify the sweep. A setting that the file lacks has its default."""
    parts = SweepConfig.model_validate(yaml.safe_load(text)).model_dump(mode="json")
    search = {name: value for name, value in parts.pop("search").items() if name not in _SEARCH_MAY_CHANGE}
    return {name: value for name, value in parts.items() if name not in _MAY_CHANGE} | {
        f"search.{name}": value for name, value in search.items()
    }


def reconcile(state: SweepState, intake: Intake, reporter: OutcomeReporter) -> None:
    """Fills the state; call it in `Drivers.alone`."""
    for spec in state.config.baseline_specs():
        if (baseline := state.records.baseline(spec.key)) is None:
            state.queue.add([Job(spec, None)])
        else:
            reporter.judge_baseline(baseline)
    stored = state.study.trials()
    for trial in stored:
        if trial.state in ("complete", "failed", "pruned"):
            _restore(trial, state, intake)
    intake.adopt()
    state.manifest.count_as_seen(trial.key for trial in stored if trial.key is not None)
    for trial in stored:  # an earlier command may have ended before it started the derived points
        noted = state.manifest.trials.get(trial.number)
        if trial.state == "complete" and noted is not None and noted.key is not None:
            intake.derive(noted.params)
    _enqueue_missing(stored, state)
    state.manifest.write(state.budget.spent, at_once=True)


def _restore(trial: StudyTrial, state: SweepState, intake: Intake) -> None:
    """Counts and notes a finished trial. A lost record is made again."""
    if trial.key is None:
        intake.reject(trial.number, trial.rejected)
        return
    try:
        noted = intake.note(trial)
    except (KeyError, ValueError):  # an earlier version of the program allowed these settings
        intake.reject(trial.number, state.study.settings(trial))
        return
    if trial.state != "complete":
        state.counts["failed" if trial.state == "failed" else "given up"] += 1
        return
    state.counts["done"] += 1
    state.policy.success()
    if all(violation <= 0 for violation in trial.constraints.values()):
        state.front.add(trial.number, noted.specs[0].key, trial.values)
    lost = [job for job in noted.jobs() if state.records.complete(job.spec.key) is None]
    if lost:
        state.notice(f"trial {trial.number}: its record is gone from {state.records.ledger.root}; it runs again")
        state.queue.pending[trial.number] = noted
        state.queue.add(lost)


def _enqueue_missing(stored: list[StudyTrial], state: SweepState) -> None:
    """Enqueues the manifest's trials that the study lacks, and the first points where the study is new."""
    drivers = state.study.drivers
    try:
        # the study lacks trials where it was set aside, or where the last command used another machine's cache
        spent = state.manifest.recall({trial.key for trial in stored})
        if spent and drivers.spent() == (0.0, 0.0):
            drivers.restore_spent(spent)
    except InputError as error:
        aside = set_aside(state.folder / "manifest.json")
        state.notice(f"{str(error).rpartition(';')[0]}; set aside as {aside.name}, and made again from the study")
    state.budget.restore(drivers.spent())
    points: list[dict[str, Any]] = [trial.params for trial in state.manifest.missing.values()]
    if state.study.is_new:
        if earlier := earlier_trials(state.config, state.folder.parent):
            state.study.keep_earlier(earlier)
        points += [point for point in state.config.search.first if point not in points]
    state.study.enqueue(points)
