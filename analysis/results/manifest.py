"""`manifest.json`: every proposed trial of a sweep with its keys. The same classes write it and read it."""

import math
from collections import Counter
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from analysis.metrics.names import Criteria, Objective, parse_constraint, split_metric
from trials.errors import InputError
from trials.ledger.record import IMPORTED, GivenUp, Key
from trials.ledger.storage import NotAFile, folders_with, is_folder, read_bytes, write_json
from trials.printable import one_line

Text = Annotated[str, Field(pattern=r"^[^\x00]*$")]
_FILE = "manifest.json"


def _is_setting(value: Any) -> bool:
    if isinstance(value, list):
        return not any(isinstance(one, list) for one in value) and all(map(_is_setting, value))
    if isinstance(value, str):
        return "\0" not in value
    if isinstance(value, int):  # parquet and sqlite hold 64 bits
        return abs(value) < 2**63
    return value is None or (isinstance(value, float) and math.isfinite(value))


def are_settings(params: dict[str, Any]) -> dict[str, Any]:
    for path, value in params.items():
        if not _is_setting(value):
            raise ValueError(f"{path}: a setting is a number, a text, yes or no, or a list of these")
    return params


Settings = Annotated[dict[Text, Any], AfterValidator(are_settings)]
"""Values by dotted path."""


class ManifestTrial(BaseModel):
    """A proposed trial: the keys of its replicates, or the reason why it can have none."""

    number: int = Field(ge=0, lt=2**31)
    key: Key | None = None
    replicate_keys: list[Key] = Field(default=[], alias="keys")
    """All keys, `key` first. Written for several replicates only."""
    baseline: Key | None = None
    params: Settings
    failure: str | None = None
    free: bool = False
    """Derived from the training of another trial, so that the budget does not count it."""
    given_up: GivenUp | None = None
    paused: bool = False
    """It waits for a decision of search.multi_fidelity on whether it goes on."""

    @model_validator(mode="after")
    def _has_keys_or_a_failure(self) -> "ManifestTrial":
        if self.key is None and self.failure is None:
            raise ValueError("a trial has a key, or a failure that says why not")
        if self.key is not None and self.baseline is None:
            raise ValueError("a trial with a key has a baseline")
        if self.key is not None and self.keys[0] != self.key:
            raise ValueError("a trial's key is the first of its keys")
        return self

    @property
    def keys(self) -> list[Key]:
        """One a replicate."""
        return self.replicate_keys or ([] if self.key is None else [self.key])


class Manifest(BaseModel):
    # A newer version may write more; what is unknown here is ignored.
    model_config = ConfigDict(populate_by_name=True)

    schema_number: Literal[1] = Field(alias="schema")
    name: str
    objectives: list[Objective] = Field(min_length=1)
    constraints: list[str] = []
    space: list[Text] = []
    trials: list[ManifestTrial] = []
    spent: list[Annotated[float, Field(ge=0, allow_inf_nan=False)]] = []
    """GPU-seconds, and seconds that commands of the sweep have run."""
    baselines: list[Key] = []
    budget: int | None = Field(default=None, ge=0, lt=2**63)
    documents: Literal["half", "all"] = "all"
    """The documents that the search saw. With `half` results are quoted on the other half."""

    @field_validator("objectives", mode="before")
    @classmethod
    def _known_fields(cls, objectives: Any) -> Any:  # a config refuses unknown ones, a newer version's manifest may have some
        if not isinstance(objectives, list):
            return objectives
        known = Objective.model_fields.keys()
        return [{name: one[name] for name in known & one.keys()} if isinstance(one, dict) else one for one in objectives]

    # the name becomes a path: a manifest from elsewhere must not lead out of its storage
    @field_validator("name")
    @classmethod
    def _stays_in_its_folder(cls, name: str) -> str:
        if not name or "\0" in name or name.startswith("/") or ".." in name.split("/"):
            raise ValueError("a name is the name of a folder")
        return name

    @model_validator(mode="after")
    def _nothing_twice(self) -> "Manifest":
        if len(self.spent) not in (0, 2):
            raise ValueError("spent is GPU-seconds and seconds")
        for what, named in (
            ("trial", [trial.number for trial in self.trials]),
            ("objective", [objective.metric for objective in self.objectives]),
            ("path", self.space),
        ):
            if twice := [one for one, count in Counter(named).items() if count > 1]:
                raise ValueError(f"{what} {twice[0]} stands there twice")
        return self

    @property
    def imported(self) -> bool:
        """Whether its trials are results that others measured (orchestrator/import_results.py)."""
        return bool(self.baselines) and all(key.startswith(IMPORTED) for key in self.baselines)

    @property
    def criteria(self) -> Criteria:
        """InputError where a metric or a constraint is none of this version."""
        for objective in self.objectives:
            split_metric(objective.metric)
        return Criteria(tuple(self.objectives), tuple(map(parse_constraint, self.constraints)))

    @property
    def baseline_keys(self) -> list[Key]:
        """The sweep's baselines, then others that trials name."""
        named = (trial.baseline for trial in self.trials if trial.baseline is not None)
        return list(dict.fromkeys([*self.baselines, *named]))

    @property
    def paths(self) -> tuple[str, ...]:
        """The dotted paths of the space, then others that trials have."""
        return tuple(dict.fromkeys([*self.space, *(path for trial in self.trials for path in trial.params)]))

    def write(self, folder: Path) -> None:
        # what was not set is left out: a trial is a line or two, and a sweep may have a hundred thousand
        write_json(folder / _FILE, self.model_dump(by_alias=True, exclude_unset=True))

    @classmethod
    def read(cls, folder: Path) -> "Manifest":
        """Raises InputError, one line, where the folder has no manifest, or none that is whole."""
        path = folder / _FILE
        if not is_folder(folder):
            raise InputError(f"{folder}: there is no such folder; name a sweep's folder, STORAGE/SWEEP")
        try:
            return cls.model_validate_json(read_bytes(path))
        except NotAFile as error:
            raise _not_whole(path, str(error.strerror)) from None
        except FileNotFoundError:
            inside = sweeps_in(folder)
            hint = f"; the sweeps in it are {', '.join(inside[:8])}" if inside else "; name a sweep's folder, STORAGE/SWEEP"
            raise InputError(f"{folder}: no sweep, it holds no {_FILE}{hint}") from None
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(str(part) for part in first["loc"])
            raise _not_whole(path, one_line(f"{where}: {first['msg']}".removeprefix(": "))[:160]) from None


def _not_whole(path: Path, reason: str) -> InputError:
    return InputError(f"{path}: not a whole manifest ({reason}); running the sweep again rewrites it")


def sweeps_in(storage: Path) -> list[str]:
    """Names of the folders of a storage root that hold a sweep."""
    return folders_with(storage, _FILE)
