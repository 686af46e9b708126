"""The line of the config that a problem is about which only reading the models, the data or the tasks has shown."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from trials.errors import InputError
from trials.explain import Place

if TYPE_CHECKING:
    from trials.yaml_file import YamlFile

_SOURCE = re.compile(r"(?:node \S+: )?(?:data set of )?source '([^']+)'")
_SETTING = re.compile(
    r"(?:node \S+: )?(?:the tokenizer of )?((?:base|data|eval|hub_mirror|lora|search|train)(?:\.\w+)*)(?=[ :])"
)


@contextmanager
def placed(path: Path, overrides: Sequence[str] = ()) -> Iterator[None]:
    """Puts `file:line:column: ` before each line of an InputError that begins with a setting or a source of the config."""
    try:
        yield
    except InputError as error:
        from orchestrator.config.load import override_all
        from trials.yaml_file import YamlFile

        file = YamlFile(path)
        override_all(file, overrides)
        raise InputError("\n".join(_placed(file, line) for line in str(error).splitlines())) from error


def _placed(file: "YamlFile", line: str) -> str:
    place: Place
    if source := _SOURCE.match(line):
        own = file.data["data"].get("sources") or {}
        place = ("data", "sources", source[1]) if source[1] in own else ("data", "mix", source[1])
    elif setting := _SETTING.match(line):
        place = tuple(int(part) if part.isdigit() else part for part in setting[1].split("."))
    else:
        return line
    return f"{file.where(place)}: {line}"
