"""Reads a sweep's config from YAML with `--set` overrides and checks it completely before anything starts."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from orchestrator import gpu_catalog
from orchestrator.config import check_eval, racing, shipped, validate
from orchestrator.config.model import Resources, SweepConfig
from trials import dotted_path
from trials.errors import InputError
from trials.ledger.storage import local
from trials.models import devices
from trials.printable import without_passwords
from trials.yaml_file import YamlFile, dump


def load(path: Path | YamlFile, overrides: Sequence[str] = (), gpu: str | None = None, option: str = "--set ") -> SweepConfig:
    """Checks a config, read already or not. Raises InputError with a line `file:line:column: ...` for each problem.

    A problem in one of the overrides is placed by its text, after `option`.
    `gpu`, the kind that trials will have, settles base.dtype auto. Default: accelerator_type, else this machine's GPU.
    """
    file = path if isinstance(path, YamlFile) else YamlFile(path)
    override_all(file, overrides, option)
    _find_includes(file)
    config = file.check(SweepConfig)
    problems = [*validate.problems(config), *check_eval.question_problems(config, file.data.get("eval"))]
    if problems:
        raise InputError("\n".join(dict.fromkeys(f"{file.where(place)}: {text}" for place, text in problems)))
    return settled(config, gpu)


def override_all(file: YamlFile, overrides: Sequence[str], option: str = "--set ") -> None:
    """Puts the overrides into the file's data, and the section `base` of another file that they or the file name."""
    _take_base(file)
    for override in overrides:
        _override(file, override, option)
        _take_base(file)


def settled(config: SweepConfig, gpu: str | None = None) -> SweepConfig:
    """The config with what its defaults stand for: base.dtype auto, the type for its GPU, and racing, on where it can be."""
    if "racing" not in config.search.model_fields_set:
        search = config.search.model_copy(update={"racing": racing.by_default(config)})
        config = config.model_copy(update={"search": search})
    if config.base.dtype != "auto":
        return config
    dtype = devices.half_type(_capability(config.resources, gpu))
    return config.model_copy(update={"base": config.base.model_copy(update={"dtype": dtype})})


def _capability(resources: Resources, gpu: str | None) -> devices.Capability | None:
    """Compute capability of the trials' GPU; None without a GPU, or for one with bfloat16 units."""
    if not resources.gpus_per_trial:
        return None
    if named := gpu or resources.accelerator_type:
        return gpu_catalog.before_bfloat16(named)
    # torch takes seconds to import, and has nothing to say without a driver
    return devices.capability() if gpu_catalog.local() else None


def _take_base(file: YamlFile) -> None:
    """Replaces `base: FILE` by the section `base` of that file: beside the config, in the working directory, or shipped."""
    named = file.data.get("base")
    if not isinstance(named, str):
        return
    where = file.where(("base",))
    written = local(named, f"{where}: base")
    places = [Path(file.path).parent / written, written, shipped.find(named)]
    try:
        found = next((place for place in places if place.is_file()), None)
    except OSError as error:
        raise InputError(f"{where}: base: not a file name: {error.strerror}") from None
    if found is None:
        folders = " nor ".join(str(folder) for folder in dict.fromkeys(str(place.parent) for place in places))
        raise InputError(f"{where}: base: no file {named!r}; it is neither in {folders}. A hub id goes into base.model")
    other = YamlFile(found)
    if not isinstance(other.data.get("base"), dict):
        raise InputError(f"{where}: base: {found} has no section `base`")
    file.take("base", other)


def _find_includes(file: YamlFile) -> None:
    """Makes the task folders and the files of questions of `eval` absolute: beside the config, or in the working directory."""
    roles = file.data.get("eval")
    for role, fields in roles.items() if isinstance(roles, dict) else ():
        for key in ("include", "questions"):
            named = fields.get(key) if isinstance(fields, dict) else None
            if isinstance(named, str) and named:
                written = local(named, f"{file.where(('eval', role, key))}: eval.{role}.{key}")
                places = [(Path(file.path).parent / written).absolute(), written.absolute()]
                fields[key] = str(next((place for place in places if place.exists()), places[-1]))


def _override(file: YamlFile, override: str, option: str) -> None:
    path, separator, value = override.partition("=")
    shown = without_passwords(override)
    if path == "search.study" or "://" in value:  # it may hold a password in an unforeseen form
        shown = f"{path}=***"
    shown = shown if len(shown) < 100 else f"{shown[:97]}..."
    if not separator or "" in path.split("."):
        raise InputError(f"{option}{shown}: expected PATH=VALUE, such as lora.rank=16")
    *parents, last = _keys(file.data, path)
    inner = file.data
    for parent in parents:
        if parents[0] == "eval" and isinstance(inner, dict) and isinstance(inner.get(parent), str):
            inner[parent] = {"preset": inner[parent]}
        inner = inner.setdefault(parent, {}) if isinstance(inner, dict) else None
        if not isinstance(inner, dict):
            raise InputError(f"{option}{shown}: {path} does not lead to a key")
    try:
        inner[last] = YamlFile(Path("--set"), text=f"v: {value}").data["v"]
    except InputError as error:
        why = str(error).partition("not YAML: ")[2]
        raise InputError(f"{option}{shown}: not a YAML value: {why}") from None
    file.name((*parents, last), f"{option}{shown}")


_PARAMETER_KEYS = {"type", "choices", "low", "high", "log", "step", "when", "sources"}


def _keys(data: Any, path: str) -> list[str]:
    """The keys of the config that the path of a `--set` leads through."""
    # a parameter that the space lacks has its whole path as one key
    if path.startswith("space.") and not any(path.startswith(f"space.{known}") for known in data.get("space") or ()):
        setting, _, key = path.removeprefix("space.").rpartition(".")
        return ["space", setting, key] if key in _PARAMETER_KEYS else ["space", path.removeprefix("space.")]
    return dotted_path.longest_keys(data, path)


def resolved(config: SweepConfig) -> str:
    """The config with every default written out, as YAML."""
    return dump(config.model_dump(mode="json"))
