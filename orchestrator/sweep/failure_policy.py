"""Decides what a failure means for its trial, for the trials of its baseline and for the sweep. No I/O, no Optuna."""

from collections.abc import Collection, Iterable, Mapping

from analysis.metrics.definitions import CHANCE_KINDS, RATES
from analysis.metrics.names import joint, roles_of, split_metric
from orchestrator.sweep.queue import PendingTrial
from trials.ledger.record import Failure, TrialRecord

BASELINE_FAILED = "its baseline failed"
BASELINE_UNDEFINED = "an objective or a constraint is undefined on its baseline"

_FIRST_FAILURES = 3  # in a row, without a success: a fault of the machine fails every trial
_FIRST_FAILURES_OF_SETTINGS = 12  # the same where each setting may have caused its own failure
_OWN_FAULT = {"NonFiniteLoss", "NonFiniteNumber", "OutOfMemory"}  # kinds of failure that a setting causes


class FailurePolicy:
    """Ends a sweep in which nothing can succeed: each method that may end it returns the sentence that says why, or None.

    A failed trial is held back until another one succeeds: a fault of the machine is no verdict on the settings.
    """

    def __init__(self, baselines: Collection[str]):
        """`baselines` are the keys of all baselines of the sweep."""
        self._baselines = frozenset(baselines)
        self.unusable: dict[str, str] = {}
        """By baseline: why no trial can be compared with it. Trials of other baselines go on."""
        self._succeeded = False
        self._failures: dict[int, Failure] = {}  # by trial, since the last success: replicates of one setting count once
        self._held_back: list[PendingTrial] = []

    @property
    def held_back(self) -> int:
        return len(self._held_back)

    def success(self) -> None:
        self._succeeded = True
        self._failures.clear()

    def trial_failed(self, number: int, failure: Failure, place: str, slots: int) -> str | None:
        """`place` names the record; `slots` trials run at once."""
        self._failures[number] = failure
        count, last = len(self._failures), list(self._failures.values())
        own_fault = all(one.kind in _OWN_FAULT for one in last)
        alike = len({(one.kind, one.message[:60]) for one in last}) == 1
        # after a success: a full disk or a lost GPU fails one trial after the other, `slots` of them at a time
        if count >= 2 * max(_FIRST_FAILURES, slots) and alike and not own_fault:
            return f"the last {count} trials all failed with {_cause(failure)} ({place})"
        if not self._succeeded and count >= (_FIRST_FAILURES_OF_SETTINGS if own_fault else _FIRST_FAILURES):
            return f"the first {count} trials all failed; the last one with {_cause(failure)} ({place})"
        return None

    def baseline_failed(self, key: str, failure: Failure, place: str) -> str | None:
        self.unusable[key] = BASELINE_FAILED
        if self._none_is_usable():
            return f"a baseline failed, and forgetting is measured against it: {_cause(failure)} ({place})"
        return None

    def baseline_undefined(self, key: str) -> bool:
        """Rules out a baseline on which an objective or a constraint is undefined; returns whether that ends the sweep."""
        self.unusable[key] = BASELINE_UNDEFINED
        return self._none_is_usable()

    def _none_is_usable(self) -> bool:
        return self.unusable.keys() >= self._baselines

    def hold_back(self, trial: PendingTrial) -> bool:
        """Keeps a trial that failed or has undefined objectives; returns whether the failure is its own, to be reported now."""
        self._held_back.append(trial)
        return trial.failure in _OWN_FAULT

    def release(self) -> list[PendingTrial]:
        """Returns the trials that were held back and forgets them."""
        released, self._held_back = self._held_back, []
        return released


def undefined_on(baseline: TrialRecord, metrics: Mapping[str, float | None], wanted: Iterable[str]) -> str | None:
    """Names the wanted metrics that are undefined on a baseline: rates of a score of 0, adjusted changes where a number of
    choices is unknown, and metrics of several roles without answers. Says what to do instead; None without any."""
    missing = {name: split_metric(name)[1] for name in wanted if metrics.get(name) is None}
    adjusted = [name for name, kind in missing.items() if kind in CHANCE_KINDS]
    if adjusted:
        return (
            f"{', '.join(adjusted)}: undefined, since a document of baseline {baseline.key} has no known number of choices; "
            "use lost and won, or remove the baseline's folder from the ledger if an older version wrote it"
        )
    undefined = [name for name, kind in missing.items() if kind in RATES]
    if not undefined:
        return None
    roles = [role for role in roles_of(undefined) if metrics.get(f"{role}.forgetting") is None]
    if not roles and joint(undefined):
        names = ", ".join(joint(undefined))
        return f"{names}: unknown, since baseline {baseline.key} has no answers to the documents of some role"
    roles = roles or roles_of(undefined)
    instead = " or ".join(f"{role}.{kind}" for role in roles for kind in ("drop", "gold_bpb_delta"))
    return (
        f"{', '.join(undefined)}: undefined, since {baseline.spec.base.model} scores 0 on {', '.join(roles)} before any "
        f"training (baseline {baseline.key}) and this is a share of that score; use {instead}"
    )


def _cause(failure: Failure) -> str:
    return f"{failure.kind}: {' '.join(failure.message.split())[:300]}"
