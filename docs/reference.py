"""Pages of the site that are made from the code at each build: every field of a config, every command.

mkdocs runs `on_files` as a hook (mkdocs.yml); `python docs/reference.py` prints the pages.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import typer
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from typer.cli import get_docs_for_click

from orchestrator.cli import app
from orchestrator.config.model import SweepConfig
from trials.__main__ import parser

Schema = Mapping[str, Any]
_KINDS = {"integer": "whole number", "number": "number", "string": "text", "boolean": "true or false", "object": "mapping"}
_BOUNDS = {"minimum": "at least", "exclusiveMinimum": "above", "maximum": "at most", "exclusiveMaximum": "below"}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    for path, text in pages().items():
        files.append(File.generated(config, path, content=text))
    return files


def pages() -> dict[str, str]:
    """Path below docs/ -> Markdown."""
    return {"reference/config.md": config_page(), "reference/commands.md": commands_page()}


# ---------------------------------------------------------------------- fields


def config_page() -> str:
    schema = SweepConfig.model_json_schema()
    parts = [
        "# Every field of a config",
        "Made from the code. `space` and `--set` address a field by its dotted path, such as `lora.rank`. "
        "[The config](../config.md) explains how a sweep is written, and [the knobs](../knobs.md) say which fields "
        "are worth a search.",
        "## The sweep",
        "\n".join(_fields(schema, "")),
    ]
    for path, name in _sections(schema, schema["$defs"]):
        section = schema["$defs"][name]
        kind = _kind(section) or ("list" if section.get("type") == "array" else None)
        title = f"{path} of type {kind}" if kind else path
        parts += [f"## {title} {{#{name}}}", _joined(section.get("description", "")), "\n".join(_fields(section, path))]
    return "\n\n".join(part for part in parts if part) + "\n"


def _sections(schema: Schema, definitions: Mapping[str, Schema]) -> Iterator[tuple[str, str]]:
    """(dotted path, definition) of each section, a section's own ones right after it. A definition comes once."""
    seen: set[str] = set()

    def below(part: Schema, path: str) -> Iterator[tuple[str, str]]:
        for field, one in part.get("properties", {}).items():
            for name, inside in _references(one):
                where = f"{path}.{field}{inside}".lstrip(".")
                if name not in seen and {"properties", "description"} & definitions[name].keys():
                    seen.add(name)
                    yield where, name
                    yield from below(definitions[name], where)

    yield from below(schema, "")


def _references(schema: Schema, inside: str = "") -> Iterator[tuple[str, str]]:
    """(definition, what its path adds to the field's) of each definition that a field may hold."""
    if "$ref" in schema:
        yield schema["$ref"].rpartition("/")[2], inside
    for one in _alternatives(schema):
        yield from _references(one, inside)
    if isinstance(items := schema.get("items"), dict):
        yield from _references(items, inside)
    if isinstance(values := schema.get("additionalProperties"), dict):
        yield from _references(values, f"{inside}.NAME")


def _alternatives(schema: Schema) -> list[Schema]:
    return [one for name in ("anyOf", "oneOf", "allOf") for one in schema.get(name, ()) if one.get("type") != "null"]


def _kind(section: Schema) -> str | None:
    """The `type` that tells a section from its alternatives."""
    return section.get("properties", {}).get("type", {}).get("const")


def _fields(section: Schema, path: str) -> Iterator[str]:
    needed = set(section.get("required", ()))
    for name, field in section.get("properties", {}).items():
        if name == "type" and _kind(section):
            continue
        facts = [takes(field), "required" if name in needed else _default(field)]
        meaning = _joined(field.get("description", ""))
        yield f"- **`{path}.{name}`**: ".replace("`.", "`") + "; ".join(fact for fact in facts if fact) + f".<br>{meaning}"


def _default(field: Schema) -> str:
    default = field.get("default")
    if default is None or default in ("", [], ()) or isinstance(default, dict):
        return ""
    return f"default `{str(default).lower() if isinstance(default, bool) else default}`"


def takes(field: Schema) -> str:
    """What a field takes, in words."""
    if "$ref" in field:
        name = field["$ref"].rpartition("/")[2]
        return f"[{name}](#{name})" if not name.endswith("Value") else "any value"
    if "const" in field:
        return f"`{field['const']}`"
    if "enum" in field:
        return ", ".join(f"`{one}`" for one in field["enum"])
    if choices := _alternatives(field):
        return " or ".join(dict.fromkeys(map(takes, choices)))
    kind, items, values = field.get("type"), field.get("items"), field.get("additionalProperties")
    if kind == "array":
        return f"list of: {takes(items)}" if items else "list"
    if kind == "object" and isinstance(values, dict) and values:
        return f"mapping of names to: {takes(values)}"
    if field.get("format") == "date":
        return "date"
    bounds = [
        f"{word} {field[name]:g}"
        for name, word in _BOUNDS.items()
        if abs(field.get(name, 2**16)) < 2**16  # a greater one keeps a loop finite, and means nothing to a reader
    ]
    return ", ".join([_KINDS.get(str(kind), "any value"), *bounds])


def _joined(text: str) -> str:
    return " ".join(text.split())


# ---------------------------------------------------------------------- commands


def commands_page() -> str:
    command = typer.main.get_command(app)
    for one in command.commands.values():  # type: ignore[attr-defined]
        # the whole first sentence; by default it is cut after 45 characters
        one.short_help = _joined(re.split(r"(?<=\.)\s", one.help, maxsplit=1)[0])
    text = get_docs_for_click(obj=command, ctx=typer.Context(command), name="slimsweep", title="Every command")
    text = re.sub(r"^Example: (.*(?:\n.+)*)", lambda found: f"```\n{_joined(found[1])}\n```", text, flags=re.MULTILINE)
    alone = f"One trial without Ray, like `python -m trials`.\n\n```\n{parser().format_help().strip()}\n```"
    return f"{text}## `slimsweep-trial`\n\n{alone}\n"


if __name__ == "__main__":
    print("\n".join(pages().values()))
