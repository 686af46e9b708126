"""Identities of the content behind a spec's names: checksums of local files, commits of the hub. They pin a spec.

Content of the package has no identity: a change to it raises SCHEMA.
"""

import hashlib
import importlib.metadata
import json
import re
from collections.abc import Collection
from functools import cache
from itertools import chain
from pathlib import Path

from trials.errors import InputError
from trials.evaluation_section import FOLDER
from trials.hub import fingerprint
from trials.hub.hub import COMMIT, SELF, TASK_FOLDERS, Hub, find_source, is_commit
from trials.spec import Base, Data, TrialSpec
from trials.tasks import local_data, own_tasks
from trials.tasks.folder import files, opened

FILES = "sha256:"
_WEIGHTS = ("*.safetensors", "*.bin")
_SETTINGS = ("*.json", "*.model", "*.jinja", "*.tiktoken", "merges.txt", "vocab.txt", "additional_chat_templates/*.jinja")
_OF_TRAINING = {"training_args.bin", "trainer_state.json", "all_results.json", "train_results.json", "eval_results.json"}
"""Files that a training writes beside its weights and nothing reads."""


def of_base(base: Base, hub: Hub) -> str | None:
    """Identity of weights, configuration and tokenizer; None for a bundled model, a named commit, or an unknown model."""
    folder = Path(hub.locate(base.model))
    if not folder.is_dir():
        return _commit(base.model, "model", base.revision, hub)
    if hub.bundles(folder):
        return None
    # a GGUF file replaces the safetensors, but tokenizer and chat template stay those of the folder
    wanted = _SETTINGS if base.gguf else (*_WEIGHTS, *_SETTINGS)
    files = {path for pattern in wanted for path in folder.glob(pattern) if path.name not in _OF_TRAINING}
    if base.gguf and (folder / base.gguf).is_file():
        files.add(folder / base.gguf)
    return FILES + fingerprint.together((path.relative_to(folder).as_posix(), path) for path in files if path.is_file())


def of_source(data: Data, name: str, hub: Hub) -> str | None:
    """Identity of a source's rows. Raises InputError where its file does not exist."""
    source = find_source(data, name)
    files = hub.files(name, source)
    if files is None:
        return _commit(source.dataset, "dataset", source.revision, hub)
    return _of_files(files, hub)


def of_task(name: str, include: str | None, hub: Hub, known: Collection[str] = ()) -> dict[str, str | None]:
    """Identities of what a task, group or tag is made of, without the `known` ones: its data sets by name, and its folder."""
    if include is None:
        every, folder = task_datasets(name, hub), {}
    else:
        own, stock = own_tasks.datasets(include, name)
        every = [*own, *(dataset for member in stock for dataset in task_datasets(member, hub))]
        folder = {} if FOLDER in known else {FOLDER: of_folder(include)}
    return folder | {dataset: of_task_data(dataset, hub) for dataset in every if dataset not in known}


def of_folder(include: str) -> str:
    """Identity of a task folder: its files, and the data files outside that its tasks name. Its own place has no effect."""
    found = opened(include)
    return FILES + fingerprint.together(chain(files(found.root).items(), local_data.outside(found)))


def of_task_data(dataset: str, hub: Hub) -> str | None:
    """Identity of the data set of an lm-eval task."""
    hub.refuse_lookalike("a task", dataset)
    files = hub.folder_files(dataset)
    return _commit(dataset, "dataset", None, hub) if files is None else _of_files(files, hub)


def check(spec: TrialSpec, hub: Hub) -> None:
    """Raises InputError where content on this machine differs from the spec's pins."""
    check_base(spec.base, hub)
    for evaluation in spec.eval.values():
        for dataset, pinned in evaluation.content.items():
            task = "+".join(evaluation.tasks)
            if dataset == FOLDER and evaluation.include is not None:
                _compare(f"the folder {evaluation.include} of task {task}", pinned, of_folder(evaluation.include))
            else:
                _compare(f"the data set {dataset} of task {task}", pinned, of_task_data(dataset, hub))
    if not spec.is_baseline:
        for name in spec.data.shares.keys() & spec.data.content.keys() - {SELF}:
            where = f"source {name!r} ({find_source(spec.data, name).dataset})"
            _compare(where, spec.data.content[name], of_source(spec.data, name, hub))


def check_base(base: Base, hub: Hub) -> None:
    if base.content is not None:
        _compare(f"base.model {base.model!r}", base.content, of_base(base, hub))


def _compare(what: str, pinned: str, found: str | None) -> None:
    if pinned.startswith(FILES) and found != pinned:
        now = short(found) if found else "without local files here"
        raise InputError(
            f"{what}: its files are {now}, and this trial is pinned to {short(pinned)}; put those back, or leave out the pin"
        )


def short(identity: str) -> str:
    kind, _, digits = identity.partition(":")
    return f"{kind}:{digits[:12]}"


def _of_files(files: dict[str, Path], hub: Hub) -> str | None:
    if all(hub.bundles(file) for file in files.values()):
        return None
    return FILES + fingerprint.together(files.items())


def _commit(name: str, kind: str, wanted: str | None, hub: Hub) -> str | None:
    if wanted is not None and is_commit(wanted):
        return None  # the spec names the commit itself
    found = hub.commit(name, kind, wanted)
    return COMMIT + found if found else None


def weights(base: Base, hub: Hub) -> str | None:
    """Checksum of a local base's weights, as in TrialRecord.base_checksum; None for a base of the hub."""
    folder = Path(hub.locate(base.model))
    if not folder.is_dir():
        return None
    return fingerprint.sha256(folder / base.gguf) if base.gguf else of_weights(folder)


def of_weights(folder: Path) -> str:
    """One checksum of the weight files, sorted by name."""
    digest = hashlib.sha256()
    for file in sorted(path for pattern in _WEIGHTS for path in folder.glob(pattern)):
        digest.update(bytes.fromhex(fingerprint.sha256(file)))
    return digest.hexdigest()


def task_datasets(name: str, hub: Hub) -> list[str]:
    """The data sets of an lm-eval task; empty for a bundled task, which has bundled data.

    lm-eval's index takes seconds to build, so the result is cached for its version.
    """
    if name in _bundled_tasks():
        return []
    version = importlib.metadata.version("lm-eval")
    note = fingerprint.cache("tasks") / hashlib.sha256(f"{version} {name}".encode()).hexdigest()[:32]
    try:
        return [str(name) for name in json.loads(note.read_text(encoding="utf-8"))]
    except (OSError, ValueError, TypeError):  # missing or incomplete
        from trials.tasks.tasks import Tasks

        found = sorted(Tasks(hub).datasets(name))
    fingerprint.keep(note, json.dumps(found))
    return found


@cache
def _bundled_tasks() -> frozenset[str]:
    files = [file for folder in TASK_FOLDERS for file in folder.rglob("*.yaml")]
    named = (re.search(r"^(?:task|group): *(\S+)$", file.read_text(encoding="utf-8"), re.MULTILINE) for file in files)
    return frozenset(match[1] for match in named if match)
