"""The manifest of a running sweep: each proposed point with its keys, or the reason why it does not run.

Study and manifest can each be rebuilt from the other.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from analysis.results.manifest import Manifest, ManifestTrial
from orchestrator.config.model import SweepConfig
from orchestrator.sweep.queue import PendingTrial
from trials.ledger.record import GivenUp
from trials.ledger.storage import exists, is_link

CONTRADICTORY = "the settings contradict each other"


class RunningManifest:
    def __init__(self, config: SweepConfig, folder: Path, clock: Callable[[], float]):
        """`clock` is monotonic, in seconds."""
        self._config, self._folder, self._clock = config, folder, clock
        self.trials: dict[int, ManifestTrial] = {}
        """The entries by the trials' numbers."""
        self.missing: dict[str, ManifestTrial] = {}
        """By key: trials of an earlier command that the study has lost and not proposed again yet."""
        self._seen: set[str] = set()
        self.unwritten = False
        """Whether an entry has changed since the last write."""
        self._written = -math.inf
        self._cost = 0.0

    @property
    def counted(self) -> int:
        """The number of trials that count against the budget."""
        return sum(not entry.free for entry in self.trials.values())

    def note(
        self, trial: PendingTrial, failure: str | None = None, given_up: GivenUp | None = None, paused: bool = False
    ) -> None:
        """Adds or replaces the trial's entry; `failure` is the reason why it does not run."""
        keys = [spec.key for spec in trial.specs]
        entry: dict[str, Any] = {"number": trial.number, "key": None, "params": trial.settings}
        if failure is None:
            entry |= {"key": keys[0], "baseline": self._config.spec(trial.settings).baseline().key}
            if len(keys) > 1:
                entry["keys"] = keys
        else:
            entry["failure"] = failure
        if trial.free:
            entry["free"] = True
        if given_up is not None:
            entry["given_up"] = given_up
        if paused:
            entry["paused"] = True
        self._seen.update(keys or [_settings_key(trial.settings)])
        for key in keys:
            self.missing.pop(key, None)
        self.trials[trial.number] = ManifestTrial(**entry)
        self.unwritten = True

    def count_as_seen(self, keys: Iterable[str]) -> None:
        """Excludes these keys from being proposed, without an entry."""
        self._seen.update(keys)

    def seen(self, settings: dict[str, Any]) -> bool:
        """Whether a trial with these settings has an entry or is excluded."""
        try:
            return self._config.spec(settings).key in self._seen
        except ValueError:  # contradictory settings have no key
            return _settings_key(settings) in self._seen

    def recall(self, known: set[str | None]) -> list[float]:
        """Finds the `missing` trials in an earlier command's file; `known` are the study's keys.

        Returns the file's Budget.spent; an empty list without a file. InputError where the file is damaged.
        """
        path = self._folder / "manifest.json"
        if not exists(path) and not is_link(path):
            return []
        earlier = Manifest.read(self._folder)
        for trial in earlier.trials:
            if trial.key is not None and trial.key not in known and not trial.free and self._is_still(trial):
                self.missing[trial.key] = trial
        return earlier.spent

    def _is_still(self, trial: ManifestTrial) -> bool:
        """Whether the settings still give the key; another version of the program may give another one."""
        try:
            return self._config.spec(trial.params).key == trial.key
        except (ValueError, KeyError):
            return False

    def write(self, spent: Iterable[float], at_once: bool = False) -> None:
        """Writes the file, unless the last write was recent."""
        now, config = self._clock(), self._config
        # the file grows with the trials, and the study has its content too: writing takes a twentieth of the time at most
        if not at_once and now - self._written < max(1.0, 20 * self._cost):
            return
        Manifest(
            schema_number=1,
            name=config.name,
            objectives=list(config.search.objectives),
            constraints=list(config.search.constraints),
            space=config.paths(),
            trials=[*(self.trials[number] for number in sorted(self.trials)), *self._lost_entries()],
            spent=list(spent),
            baselines=[spec.key for spec in config.baseline_specs()],
            budget=config.budget,
            documents=config.search.documents,
        ).write(self._folder)
        self.unwritten = False
        self._written = self._clock()
        self._cost = self._written - now

    def _lost_entries(self) -> Iterator[ManifestTrial]:
        for number, trial in enumerate(self.missing.values(), max(self.trials, default=-1) + 1):
            yield trial.model_copy(update={"number": number})


def _settings_key(settings: dict[str, Any]) -> str:
    return repr(sorted(settings.items()))
