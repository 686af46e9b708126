"""The real program on storage that fails: one clear line, nothing lost, and the same command goes on once it is mended."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.factories.command import slimsweep
from trials.ledger.record import Ledger


@contextmanager
def mounted(folder: Path, options: str) -> Iterator[None]:
    """A file system of its own at `folder`; skips where this process may not mount one."""
    folder.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], capture_output=True, check=False)
    if made.returncode != 0:
        pytest.skip(f"needs to mount a file system: {made.stderr.decode().strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def errors(ran: subprocess.CompletedProcess[str]) -> list[str]:
    assert "Traceback" not in ran.stderr, ran.stderr
    return ran.stderr.splitlines()


@pytest.mark.slow
def test_a_full_disk_stops_with_one_line_and_the_same_command_goes_on_when_there_is_room(parts, tmp_path, write):
    parts["space"]["lora.rank"]["choices"] = [2, 4, 8, 16]
    config, runs = write(parts), tmp_path / "runs"
    with mounted(runs, "size=700k"):
        full = slimsweep("run", config, "--storage", runs)
        assert full.returncode in (1, 2), full.stdout
        assert len(errors(full)) == 1
        assert "No space left" in full.stderr or "full" in full.stderr
        before = {key: Ledger(runs).read(key) for key in Ledger(runs)}
        subprocess.run(["mount", "-o", "remount,size=100m", runs], check=True)
        again = slimsweep("run", config, "--storage", runs)
        assert again.returncode == 0, again.stderr
        after = {key: Ledger(runs).read(key) for key in Ledger(runs)}
        assert len(after) == 5
        assert all(after[key] == record for key, record in before.items() if record and record.state == "complete")


def test_a_storage_that_cannot_be_written_is_one_line(parts, tmp_path, write):
    with mounted(tmp_path / "runs", "size=1m,ro"):
        ran = slimsweep("run", write(parts), "--storage", tmp_path / "runs")
    assert ran.returncode == 2
    assert len(errors(ran)) == 1
    assert "Read-only file system" in ran.stderr
    assert str(tmp_path / "runs") in ran.stderr
    assert "checking" not in ran.stdout, "it is found before the inputs are read"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_is_one_line(parts, tmp_path, write):
    (tmp_path / "runs").mkdir(mode=0o500)
    ran = slimsweep("run", write(parts), "--storage", tmp_path / "runs")
    assert ran.returncode == 2
    assert len(errors(ran)) == 1
