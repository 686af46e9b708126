"""Local files: atomic creation, moves between disks, permissions."""

import os
import stat
import tempfile
from pathlib import Path

import pytest

from trials.errors import InputError
from trials.ledger import local_files, storage


@pytest.fixture
def adapter(tmp_path) -> Path:
    """A folder with a file in a subfolder."""
    folder = tmp_path / "scratch" / "adapter"
    (folder / "inner").mkdir(parents=True)
    (folder / "inner" / "weights").write_bytes(bytes(range(256)) * 100)
    return folder


def test_created_file_is_never_visible_without_its_text(tmp_path, monkeypatch):
    seen, link = [], os.link

    def looking(source, target):
        seen.append(Path(source).read_text())
        link(source, target)

    monkeypatch.setattr(os, "link", looking)
    assert local_files.create(tmp_path / "a", "whole")
    assert seen == ["whole"]
    assert storage.names(tmp_path) == ["a"]


def test_folder_moves_to_another_disk(tmp_path, adapter, monkeypatch):
    if not Path("/dev/shm").is_dir() or Path("/dev/shm").stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is no second file system at /dev/shm")
    with tempfile.TemporaryDirectory(dir="/dev/shm") as other:
        content = (adapter / "inner" / "weights").read_bytes()
        local_files.move_folder(adapter, Path(other) / "adapter")
        assert (Path(other) / "adapter" / "inner" / "weights").read_bytes() == content
        assert storage.names(Path(other)) == ["adapter"]
    assert not adapter.exists()


def test_moved_folder_has_the_permissions_of_new_files(tmp_path, adapter):
    (adapter / "inner" / "weights").chmod(0o600)
    local_files.move_folder(adapter, tmp_path / "moved")
    (tmp_path / "new").write_text("")
    expected = stat.S_IMODE((tmp_path / "new").stat().st_mode)
    assert stat.S_IMODE((tmp_path / "moved" / "inner" / "weights").stat().st_mode) == expected


def test_copy_breaks_hard_links(tmp_path):
    one, other = tmp_path / "one", tmp_path / "other"
    one.write_text("content")
    other.hardlink_to(one)
    local_files.break_hard_links(one)
    with one.open("a") as file:
        file.write(" and more")
    assert other.read_text() == "content"


def test_anchored_folder_refuses_a_link_below_the_root(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "ledger").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="ledger is a symbolic link"), local_files.anchored(tmp_path / "ledger" / "key", 2):
        pass
    assert list((tmp_path / "elsewhere").iterdir()) == []


@pytest.mark.parametrize("kind", ["folder", "pipe", "link"])
def test_read_refuses_what_is_no_regular_file(tmp_path, kind):
    path = tmp_path / "path"
    {"folder": path.mkdir, "pipe": lambda: os.mkfifo(path), "link": lambda: path.symlink_to(__file__)}[kind]()
    with pytest.raises(local_files.NotAFile):
        local_files.read(path)
