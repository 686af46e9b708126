"""The program's own configs are found in any working folder."""

from pathlib import Path

import pytest

from orchestrator.config import shipped
from trials.errors import InputError

NAMES = ("configs/quickstart.yaml", "configs/models/pythia-1b.yaml", "configs/ablations", "./configs/quickstart.yaml")


@pytest.mark.parametrize("name", NAMES)
def test_shipped_file_is_found_anywhere(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert shipped.find(name) == shipped.FOLDER / Path(name).relative_to("configs")
    assert shipped.find(name).exists()


def test_file_of_the_working_folder_comes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "quickstart.yaml").touch()
    assert shipped.find("configs/quickstart.yaml") == Path("configs/quickstart.yaml")
    assert shipped.find("configs/paper.yaml") == shipped.FOLDER / "paper.yaml"


@pytest.mark.parametrize(
    "name", ["quickstart.yaml", "other/configs/quickstart.yaml", "configs/none.yaml", f"configs/{'x' * 5000}"]
)
def test_other_path_stays(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert shipped.find(name) == Path(name)


def test_variables_are_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("FOLDER", str(tmp_path))
    assert shipped.find("$FOLDER/a.yaml") == tmp_path / "a.yaml"
    monkeypatch.delenv("FOLDER")
    with pytest.raises(InputError, match=r"base: .*FOLDER is not set"):
        shipped.find("$FOLDER/a.yaml", "base")
