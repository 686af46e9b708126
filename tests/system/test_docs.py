"""The documentation: what is made from the code is complete, and what a reader meets first is there."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from orchestrator.cli import app
from orchestrator.config.load import load
from orchestrator.config.model import SweepConfig

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"


@pytest.fixture(scope="module")
def reference():
    """docs/reference.py, which mkdocs runs."""
    pytest.importorskip("mkdocs", reason="mkdocs is not installed (pip install 'slimsweep[docs]')")
    spec = importlib.util.spec_from_file_location("reference", DOCS / "reference.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["reference"] = module
    spec.loader.exec_module(module)
    return module


def leaves(section, path=""):
    """Dotted paths of a section's fields, those of its sections included."""
    for name, field in section.model_fields.items():
        yield f"{path}{name}"
        inner = field.annotation
        if isinstance(inner, type) and hasattr(inner, "model_fields"):
            yield from leaves(inner, f"{path}{name}.")


def test_reference_has_every_field_and_its_meaning(reference):
    lines = reference.config_page().splitlines()
    fields = dict(re.match(r"- \*\*`(.+?)`\*\*: .*<br>(.*)", line).groups() for line in lines if line.startswith("- **`"))
    assert set(leaves(SweepConfig)) <= set(fields)
    assert {"data.sources.NAME.dataset", "eval.NAME.task", "space.NAME.low", "search.objectives.metric"} <= set(fields)
    assert [name for name, meaning in fields.items() if not meaning] == []


def test_reference_has_every_command_with_its_example(reference):
    page = reference.commands_page()
    for name, command in typer.main.get_command(app).commands.items():
        assert f"## `slimsweep {name}`" in page
        example = " ".join(command.help.partition("Example:")[2].split())
        assert f"```\n{example}\n```" in page
        assert all(option in page for one in command.params for option in one.opts if option.startswith("--"))


def test_list_of_commands_has_each_commands_first_sentence_in_full(reference):
    listed = re.findall(r"^\* `(\w+)`: (.*)$", reference.commands_page(), re.MULTILINE)
    commands = typer.main.get_command(app).commands
    assert [name for name, _ in listed] == list(commands)
    for name, sentence in listed:
        assert sentence.endswith(".") and not sentence.endswith("..")
        assert " ".join(commands[name].help.split()).startswith(sentence)


def test_words_of_a_fields_kind(reference):
    assert reference.takes({"type": "integer", "minimum": 1}) == "whole number, at least 1"
    assert reference.takes({"anyOf": [{"type": "number", "exclusiveMinimum": 0}, {"type": "null"}]}) == "number, above 0"
    assert reference.takes({"type": "array", "items": {"enum": ["a", "b"]}}) == "list of: `a`, `b`"
    assert reference.takes({"type": "integer", "maximum": 10**9}) == "whole number"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("page", "text", "reason"),
    [
        ("stray.md", "# A page without a place", 'not included in the "nav"'),
        ("index.md", "[a page](nowhere.md)", "'nowhere.md', but the target is not found"),
        ("index.md", "[a section](results.md#nowhere)", "does not contain an anchor '#nowhere'"),
    ],
    ids=["page", "link", "anchor"],
)
def test_make_docs_ends_at_a_page_or_link_that_leads_nowhere(tmp_path, reference, page, text, reason):
    for name in ("Makefile", "mkdocs.yml", "requirements.lock", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(DOCS, tmp_path / "docs")
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv" / "ready").touch()  # the environment is this one
    make = ["make", "docs", f"BIN={Path(sys.executable).parent}"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    assert subprocess.run(make, cwd=tmp_path, env=environment, capture_output=True, check=False).returncode == 0
    with (tmp_path / "docs" / page).open("a") as file:
        file.write(f"\n{text}\n")
    ended = subprocess.run(make, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode != 0 and reason in ended.stderr


def test_glossary_is_sorted_and_linked():
    words = re.findall(r"^\*\*(.+?)\*\* \{#(.+?)\}$", (DOCS / "glossary.md").read_text(), re.MULTILINE)
    assert [word.lower() for word, _ in words] == sorted(word.lower() for word, _ in words)
    text = "".join(path.read_text() for path in DOCS.glob("*.md"))
    for anchor in ("role", "half", "pfront", "derived-point", "gold-solution", "replicate", "baseline", "ledger", "key"):
        assert anchor in [name for _, name in words] and f"(glossary.md#{anchor})" in text, anchor


def test_readme_is_one_page_whose_links_and_config_work(tmp_path):
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) <= 120
    assert [link for link in re.findall(r"\]\(([^)#]+)\)", text) if not (ROOT / link).exists()] == []
    (tmp_path / "mine.yaml").write_text(re.search(r"```yaml\n(.*?)```", text, re.DOTALL)[1])
    assert load(tmp_path / "mine.yaml").name == "mine"
